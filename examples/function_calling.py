"""Let Claude call functions of yours.

    pip install openai
    python examples/function_calling.py "How warm is it in Rome, and what time is it there?"

Which server, and with which key: see connection.py.
"""

import sys
from datetime import datetime, timedelta, timezone
from typing import Any

from connection import connect
from openai import pydantic_function_tool
from pydantic import BaseModel


class GetTemperature(BaseModel):
    """The temperature in a city now."""

    city: str

    def run(self) -> str:
        """Ask a weather service here."""
        return {"Paris": "18 °C", "Rome": "24 °C"}.get(self.city, f"There is no thermometer in {self.city}.")


class GetTime(BaseModel):
    """The time, so many hours from UTC."""

    utc_offset: int

    def run(self) -> str:
        """Look at the clock."""
        return datetime.now(timezone(timedelta(hours=self.utc_offset))).strftime("%H:%M")


FUNCTIONS: dict[str, type[GetTemperature | GetTime]] = {"get_temperature": GetTemperature, "get_time": GetTime}
TOOLS = [pydantic_function_tool(function, name=name) for name, function in FUNCTIONS.items()]


def main(question: str) -> None:
    """Ask, run what Claude calls, hand over the results, and go on until there is nothing left to call."""
    client = connect()
    messages: list[Any] = [{"role": "user", "content": question}]
    while messages[-1]["role"] != "assistant":
        with client.chat.completions.stream(model="sonnet", messages=messages, tools=TOOLS) as stream:
            for event in stream:
                if event.type == "content.delta":
                    print(event.delta, end="", flush=True)
            answer = stream.get_final_completion().choices[0].message
        print()
        messages.append(answer.to_dict())
        for call in answer.tool_calls or []:
            result = FUNCTIONS[call.function.name].model_validate_json(call.function.arguments).run()
            print(f"{call.function.name}({call.function.arguments}): {result}")
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]) or "Is it warmer in Paris or in Rome?")
