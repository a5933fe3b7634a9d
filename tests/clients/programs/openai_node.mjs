// openai-node: functions until the answer, whole or in a stream, or what else its users call:
// openai_node.mjs MODEL QUESTION whole|stream|create|errors

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const TEMPERATURES = { Paris: "18 °C", Rome: "24 °C" };

const text = { type: "string" };

function tool(name, description, properties, run) {
  const parameters = { type: "object", properties, required: Object.keys(properties), additionalProperties: false };
  return { type: "function", function: { name, description, parameters, parse: JSON.parse, function: run } };
}

const tools = [
  tool("get_temperature", "The temperature in a city now.", { city: text }, ({ city }) => TEMPERATURES[city]),
  tool(
    "compare",
    "Which of two temperatures is higher, and by how much.",
    { first: text, second: text },
    ({ first, second }) => `the second, by ${parseInt(second) - parseInt(first)} °C`,
  ),
];

const [model, question, mode] = process.argv.slice(2);
const client = new OpenAI({ maxRetries: 0 });
const asked = { model, messages: [{ role: "user", content: question }] };

async function runTools() {
  const runner = client.chat.completions.runTools({
    ...asked,
    tools,
    ...(mode === "stream" ? { stream: true, stream_options: { include_usage: true } } : {}),
  });
  const pieces = [];
  const calls = [];
  runner.on("content", (piece) => pieces.push(piece));
  runner.on("functionToolCall", (call) => calls.push(call.name));
  const answer = await runner.finalContent();
  const completions = runner.allChatCompletions();
  return {
    answer,
    pieces,
    calls,
    finish_reasons: completions.map((completion) => completion.choices[0].finish_reason),
    contents: completions.map((completion) => completion.choices[0].message.content),
    total_tokens: (await runner.totalUsage()).total_tokens,
  };
}

async function create() {
  const whole = await client.chat.completions.create(asked);
  const pieces = [];
  for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
    pieces.push(chunk.choices[0].delta.content ?? "");
  }
  const City = z.object({ name: z.string(), people: z.number() });
  const response_format = zodResponseFormat(City, "city");
  const parsed = await client.chat.completions.parse({ ...asked, response_format });
  return { whole: whole.choices[0].message.content, pieces, parsed: parsed.choices[0].message.parsed };
}

async function errors() {
  const names = [];
  for (const temperature of [9, 1, 1, 1, 1]) {
    await client.chat.completions
      .create({ ...asked, temperature })
      .catch((error) => names.push([error.constructor.name, error.status, Boolean(error.requestID)]));
  }
  const request = client.chat.completions.create({ ...asked, stream: true });
  await request
    .then(async (stream) => {
      for await (const _ of stream);
    })
    .catch((error) => names.push([error.constructor.name]));
  return { names };
}

console.log(JSON.stringify(await { whole: runTools, stream: runTools, create, errors }[mode]()));
