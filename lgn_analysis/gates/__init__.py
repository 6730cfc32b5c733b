"""Facts and pure functions: gates, wiring, noise, relaxations, initialisation, schedules."""
