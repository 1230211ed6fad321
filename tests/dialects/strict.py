"""Holds events of streams to the models of a client's package, as strictly as they can be read."""


def unknown(model, raw, at=""):
    """The paths of what `raw` has and the model that was read of it does not know."""
    if isinstance(raw, list) and isinstance(model, (list, tuple)):
        for part, part_raw in zip(model, raw, strict=True):
            yield from unknown(part, part_raw, f"{at}[]")
    if not isinstance(raw, dict) or not hasattr(type(model), "model_fields"):
        return
    fields = {field.alias or name: name for name, field in type(model).model_fields.items()}
    for key, value in raw.items():
        path = f"{at}.{key}".lstrip(".")
        if key not in fields:
            yield path
        else:
            yield from unknown(getattr(model, fields[key]), value, path)


def read(model, raw, extensions):
    """The event, read by a model or an adapter of several; the package knows all its fields, or they are listed."""
    validate = getattr(model, "model_validate", None) or model.validate_python
    event = validate(raw, strict=True)
    found = set(unknown(event, raw)) - set(extensions)
    assert not found, f"not in the package's {type(event).__name__}: {sorted(found)} of {raw}"
    return event
