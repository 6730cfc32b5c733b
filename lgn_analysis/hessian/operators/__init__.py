"""Linear operators, the losses that they are Hessians of, and how a module is called for them.

A product ``probe @ v``, from top to bottom: ``estimators/methods.py`` counts it, :mod:`.linear` checks v and
turns columns into rows. Of a logic gate network :mod:`.network` then adds up the kernels' products over
batches and draws of the noise (:mod:`.smoothing`). Of any other module :mod:`.module` differentiates the loss
of every batch, which :mod:`.losses` computes by a call of the module with other parameters, or
:mod:`.plain_call` by one with the module's own, in operations that have second derivatives
(:mod:`.forward_context`, :mod:`.unfused`).
"""
