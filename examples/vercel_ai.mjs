// Use the server from the AI SDK: a stream, a tool, and an object.
//
//     npm install ai @ai-sdk/openai-compatible zod
//     node examples/vercel_ai.mjs Rome
//
// OPENAI_BASE_URL is the server (http://localhost:8000/v1), OPENAI_API_KEY one of its keys, where it has any.

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, isStepCount, Output, streamText, tool } from "ai";
import { z } from "zod";

const baseURL = (process.env.OPENAI_BASE_URL || "http://localhost:8000/v1").replace(/\/$/, "");
const apiKey = process.env.OPENAI_API_KEY || "not-needed";

// Ends the program, in words, where the server can't be reached or wouldn't answer.
async function checkServer() {
  const headers = { Authorization: `Bearer ${apiKey}` };
  const answer = await fetch(`${baseURL}/auth/status`, { headers }).catch(() => null);
  const status = await answer?.json().catch(() => null);
  if (answer?.ok && status?.complete) return;
  if (!answer) console.error(`Nobody answers at ${baseURL}. Start the server (make run), or name another in OPENAI_BASE_URL.`);
  else if (answer.status === 401) console.error(`${baseURL} wants a key that it knows: put one into OPENAI_API_KEY.`);
  else if (answer.ok && status) console.error(`${baseURL} has no login to Claude. ${status.hint}`);
  else console.error(`${baseURL} isn't such a server's address, which ends with /v1, or can't answer now.`);
  process.exit(1);
}

await checkServer();
const model = createOpenAICompatible({ name: "claude", baseURL, apiKey, supportsStructuredOutputs: true })("sonnet");
const city = process.argv.slice(2).join(" ") || "Rome";

for await (const text of streamText({ model, prompt: `What is ${city} known for?` }).textStream) {
  process.stdout.write(text);
}
console.log();

const temperature = tool({
  description: "The temperature in a city now.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => ({ Paris: "18 °C", Rome: "24 °C" })[city] ?? `There is no thermometer in ${city}.`,
});
const prompt = `How warm is it in ${city}?`;
const { steps, text } = await generateText({ model, prompt, tools: { temperature }, stopWhen: isStepCount(5) });
for (const { input, output } of steps.flatMap((step) => step.toolResults)) {
  console.log(`temperature(${JSON.stringify(input)}): ${output}`);
}
console.log(text);

const schema = z.object({ name: z.string(), country: z.string() });
const { output } = await generateText({ model, prompt: `Where is ${city}?`, output: Output.object({ schema }) });
console.log(JSON.stringify(output));
