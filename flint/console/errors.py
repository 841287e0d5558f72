"""Mistakes of who starts the console, or of who opens a page of it."""

from device_runtime.errors import FlintError


class OpenConsole(FlintError):
    """A console that other machines would reach, without a word that this is meant."""

    code = "FLN-3020"


class NoSuchPage(FlintError):
    """A page of something that there is not."""

    code = "FLN-3021"
