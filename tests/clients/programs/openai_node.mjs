// openai-node's runTools, until the answer. With the argument "stream": streamed.

import OpenAI from "openai";

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
const runner = new OpenAI({ maxRetries: 0 }).chat.completions.runTools({
  model,
  messages: [{ role: "user", content: question }],
  tools,
  ...(mode === "stream" ? { stream: true, stream_options: { include_usage: true } } : {}),
});

const pieces = [];
const calls = [];
runner.on("content", (piece) => pieces.push(piece));
runner.on("functionToolCall", (call) => calls.push(call.name));

const answer = await runner.finalContent();
const completions = runner.allChatCompletions();
const seen = {
  answer,
  pieces,
  calls,
  finish_reasons: completions.map((completion) => completion.choices[0].finish_reason),
  contents: completions.map((completion) => completion.choices[0].message.content),
  total_tokens: (await runner.totalUsage()).total_tokens,
};
console.log(JSON.stringify(seen));
