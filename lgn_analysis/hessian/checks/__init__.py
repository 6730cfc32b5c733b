"""Whether a module and a loss have a Hessian, and whether products are those of it.

When a probe is made, in this order; the first check that fails raises.

1. Data and loss fit each other: ``operators/batches.py``, ``operators/known_losses.py``.
2. :mod:`.trial`: a few samples go through the module; the loss is a finite number and has a gradient in
   the parameters. :mod:`.draws`: no call draws random numbers, and two calls give one value.
3. :mod:`.differences`: which way of differentiating gives the loss, gradient and product of plain calls
   (:func:`.differences.choose_method`). Of a plain logic gate network under a loss of torch's all that is
   known, and only the loss as a function of outputs is looked at (:func:`.trial.examine_network_loss`).
4. Every batch: its loss is finite, draws nothing and is that of a plain call.
5. :mod:`.means`: batches add up to one mean, and whether ranks may share one out.
6. Where ``check`` asks for it, and by itself for everything but 3's known case, :mod:`.verification`: the
   gradient is the loss's derivative and H v the gradient's, by central differences in float64 on a few
   samples; then the module's own dtype against float64; then the kernels against automatic differentiation.

:meth:`lgn_analysis.HessianProbe.check` makes two checks of products on all data before the sixth, that they
repeat to the bit and are symmetric, and returns a :class:`.report.CheckReport`.
"""
