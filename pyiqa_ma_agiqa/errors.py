"""Errors whose message names the file or the value at fault, and the cure."""


class PluginError(Exception):
    """Base of all errors of this package."""


class InputError(PluginError, ValueError):
    """An image, a tensor or a table that cannot be used."""


class WeightsError(PluginError, RuntimeError):
    """A weights file that is missing, unreadable or does not fit."""
