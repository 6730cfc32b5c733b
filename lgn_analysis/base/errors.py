"""Errors that a user can cause; each message is one sentence that tells what to do."""


class LGNError(Exception):
    """Base of every error that this package raises on purpose."""


class InvalidInputError(LGNError, ValueError):
    """An argument, a shape or a value that does not fit."""


class DataError(InvalidInputError):
    """A data set that is unknown, malformed or out of range."""


class ConfigError(InvalidInputError):
    """A configuration that is missing, damaged, or has an unknown or wrong entry."""


class CheckpointError(InvalidInputError):
    """A file that is not a checkpoint of this package, or not a whole one."""


class DamagedFileError(InvalidInputError):
    """A file whose content does not match its checksum."""


class NotDifferentiableError(LGNError, RuntimeError):
    """A requested derivative does not exist or cannot be trusted."""


class MissingDependencyError(LGNError, ImportError):
    """An optional package is needed and not installed."""


class TrainingError(LGNError, RuntimeError):
    """Training cannot go on, for instance because the loss is not finite."""


class SweepError(LGNError, RuntimeError):
    """A sweep cannot go on, though its finished runs are kept."""


class StorageError(LGNError, OSError):
    """A file that cannot be written, for instance because the disk is full."""


class TrainingInterrupted(KeyboardInterrupt):
    """Ctrl-C during training; the message names the checkpoint to resume from."""
