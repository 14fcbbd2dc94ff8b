"""Import this package as ``warpdvr.kernels``."""

if __name__ != "warpdvr.kernels":
    raise ImportError("kernels/ is not a package of its own: import warpdvr.kernels")
