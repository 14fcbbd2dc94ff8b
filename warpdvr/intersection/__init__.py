"""Where rays meet a field: solvers that propose points in Warp kernels and evaluate the field in Torch.

Nothing here is recorded for autograd, so memory does not grow with the number of samples;
`warpdvr.rendering.implicit.reattach` makes a hit differentiable afterwards.
"""
