"""Use the server from LangChain: a chain that streams, a tool, and an answer in a form of yours.

    pip install langchain-openai
    python examples/langchain_chat.py Rome

Which server, and with which key: see connection.py.
"""

import sys

from connection import API_KEY, BASE_URL, check_server
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, SecretStr


class City(BaseModel):
    """A city."""

    name: str
    country: str


@tool
def temperature(city: str) -> str:
    """Look up the temperature in a city now."""
    return {"Paris": "18 °C", "Rome": "24 °C"}.get(city, f"There is no thermometer in {city}.")


def main(city: str) -> None:
    """Ask three times about a city."""
    model = ChatOpenAI(model="sonnet", base_url=BASE_URL, api_key=SecretStr(API_KEY))

    chain = ChatPromptTemplate([("system", "Answer in one sentence."), ("user", "What is {city} known for?")]) | model
    for chunk in chain.stream({"city": city}):
        print(chunk.text, end="", flush=True)
    print()

    asked = model.bind_tools([temperature]).invoke(f"How warm is it in {city}?")
    for call in asked.tool_calls:
        print(f"{call['name']}({call['args']}): {temperature.invoke(call).content}")

    found = model.with_structured_output(City).invoke(f"Where is {city}?")
    if isinstance(found, City):
        print(f"{found.name} is in {found.country}")


if __name__ == "__main__":
    check_server()
    main(" ".join(sys.argv[1:]) or "Rome")
