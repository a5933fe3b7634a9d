// The AI SDK's generateText and streamText with tools, in as many steps as the answer takes, by either of the providers
// that its users point at such a server: ai_sdk.mjs MODEL QUESTION compatible|openai generate|stream

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, streamText, tool } from "ai";
import { z } from "zod";

const TEMPERATURES = { Paris: "18 °C", Rome: "24 °C" };

const tools = {
  get_temperature: tool({
    description: "The temperature in a city now.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => TEMPERATURES[city],
  }),
  compare: tool({
    description: "Which of two temperatures is higher, and by how much.",
    inputSchema: z.object({ first: z.string(), second: z.string() }),
    execute: async ({ first, second }) => `the second, by ${parseInt(second) - parseInt(first)} °C`,
  }),
};

const [model, prompt, provider, mode] = process.argv.slice(2);
const baseURL = process.env.OPENAI_BASE_URL;
const apiKey = process.env.OPENAI_API_KEY;
const chat = {
  compatible: () => createOpenAICompatible({ name: "claude-wrapper", baseURL, apiKey, includeUsage: true })(model),
  openai: () => createOpenAI({ baseURL, apiKey }).chat(model),
}[provider]();
const options = { model: chat, tools, prompt, stopWhen: isStepCount(5), maxRetries: 0 };

// How many parts of each kind a stream had, and its text.
async function streamed() {
  const result = streamText(options);
  const parts = {};
  let text = "";
  for await (const part of result.stream) {
    if (part.type === "error") throw part.error;
    parts[part.type] = (parts[part.type] ?? 0) + 1;
    text += part.type === "text-delta" ? part.text : "";
  }
  return { parts, text, steps: await result.steps };
}

async function generated() {
  const { steps } = await generateText(options);
  return { parts: {}, text: steps.map((step) => step.text).join(""), steps };
}

const { parts, text, steps } = await (mode === "stream" ? streamed() : generated());
const seen = {
  parts,
  text,
  answer: steps.at(-1).text,
  finish_reasons: steps.map((step) => step.finishReason),
  calls: steps.flatMap((step) => step.toolCalls.map((call) => call.toolName)),
  total_tokens: steps.map((step) => step.usage.totalTokens),
};
console.log(JSON.stringify(seen));
