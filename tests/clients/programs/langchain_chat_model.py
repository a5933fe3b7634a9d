"""LangChain's own suite for chat models, over its class for OpenAI's. The server is in the environment."""

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


class TestChatOpenAI(ChatModelIntegrationTests):
    """The suite. What fetches pictures, documents and sound from the net is off, as it is unless a flag turns it on."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        """The class under test."""
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        """How it is made; the address and the key are in the environment."""
        return {"model": "claude-sonnet-4-5", "max_retries": 0, "stream_usage": True}

    @property
    def model_override_value(self) -> str:
        """Another model, for the tests that ask for it in one call."""
        return "claude-haiku-4-5"

    @property
    def supports_json_mode(self) -> bool:
        """Whether `method="json_mode"` works."""
        return True
