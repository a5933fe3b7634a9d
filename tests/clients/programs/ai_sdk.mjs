// The AI SDK's functions, by either of the providers that its users point at such a server, with tools in as many steps as
// the answer takes: ai_sdk.mjs MODEL QUESTION compatible|openai generate|stream|object|parts|errors|abort

import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, isStepCount, Output, streamText, tool } from "ai";
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
const compatible = { name: "claude-wrapper", includeUsage: true, supportsStructuredOutputs: true };
const chat = {
  compatible: () => createOpenAICompatible({ ...compatible, baseURL, apiKey })(model),
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

async function withTools() {
  const { parts, text, steps } = await (mode === "stream" ? streamed() : generated());
  return {
    parts,
    text,
    answer: steps.at(-1).text,
    finish_reasons: steps.map((step) => step.finishReason),
    calls: steps.flatMap((step) => step.toolCalls.map((call) => call.toolName)),
    total_tokens: steps.map((step) => step.usage.totalTokens),
  };
}

// Whole, and in parts that grow.
async function object() {
  const output = Output.object({ schema: z.object({ name: z.string(), people: z.number() }) });
  const whole = await generateText({ model: chat, prompt, output, maxRetries: 0 });
  const stream = streamText({ model: chat, prompt, output, maxRetries: 0 });
  const parts = [];
  for await (const part of stream.partialOutputStream) parts.push(part);
  return { whole: whole.output, parts };
}

async function parts() {
  const dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
  const content = [
    { type: "text", text: prompt },
    { type: "file", data: Buffer.from(dot, "base64"), mediaType: "image/png" },
    { type: "file", data: Buffer.from("%PDF-1.4"), mediaType: "application/pdf", filename: "a.pdf" },
  ];
  const { text } = await generateText({ model: chat, messages: [{ role: "user", content }], maxRetries: 0 });
  return { text };
}

async function errors() {
  const seen = [];
  for (const temperature of [9, 1, 1, 1, 1]) {
    await generateText({ model: chat, prompt, temperature, maxRetries: 0 }).catch((error) =>
      seen.push([APICallError.isInstance(error), error.statusCode, error.isRetryable, error.message]),
    );
  }
  return { seen };
}

// Leaves in the middle of an answer.
async function abort() {
  const controller = new AbortController();
  const result = streamText({ model: chat, prompt, abortSignal: controller.signal, maxRetries: 0 });
  const kinds = [];
  for await (const part of result.stream) {
    kinds.push(part.type);
    if (part.type === "text-delta") controller.abort();
  }
  return { kinds };
}

const play = { generate: withTools, stream: withTools, object, parts, errors, abort }[mode];
console.log(JSON.stringify(await play()));
