"""What the programs have their model call, fill and look at, whichever client they use."""

from base64 import b64decode

from pydantic import BaseModel

TEMPERATURES = {"Paris": "18 °C", "Rome": "24 °C"}
DOT = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
"""A picture (PNG)."""


class City(BaseModel):
    """A city."""

    name: str
    people: int


def get_temperature(city: str) -> str:
    """Look up the temperature in a city now."""
    return TEMPERATURES[city]


def compare(first: str, second: str) -> str:
    """Tell which of two temperatures is higher, and by how much."""
    return f"the second, by {int(second.removesuffix(' °C')) - int(first.removesuffix(' °C'))} °C"
