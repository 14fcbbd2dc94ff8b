"""Import this package as ``warpdvr.fields``."""

if __name__ != "warpdvr.fields":
    raise ImportError("fields/ is not a package of its own: import warpdvr.fields")
