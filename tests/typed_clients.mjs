// Clients of npm's that ask for typed answers, unchanged, with a daemon.
//
// Usage: node typed_clients.mjs PACKAGES BASE_URL MODEL

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [packages, baseURL, model] = process.argv.slice(2);
const require = createRequire(path.join(packages, "package.json"));
const load = (name) => import(pathToFileURL(require.resolve(name)));

const { z } = await load("zod");
const Pet = z.object({
  name: z.string().max(12),
  kind: z.enum(["cat", "dog"]),
  age: z.number().int().min(0).max(30),
  toys: z.array(z.object({ colour: z.enum(["red", "green"]), parts: z.number().int().min(1).max(9) })).max(2),
});
const question = "Invent a pet.";

{
  const { default: OpenAI } = await load("openai");
  const { zodResponseFormat } = await load("openai/helpers/zod");
  const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
  for (const seed of [1, 2]) {
    const answer = await client.chat.completions.parse({
      model, seed, max_tokens: 300, temperature: 1,
      messages: [{ role: "user", content: question }],
      response_format: zodResponseFormat(Pet, "pet"),
    });
    Pet.parse(answer.choices[0].message.parsed);
  }
}
{
  const { generateObject } = await load("ai");
  const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
  const provider = createOpenAICompatible({
    name: "rkllmd", baseURL, supportsStructuredOutputs: true,
  });
  const answer = await generateObject({
    model: provider(model), schema: Pet, prompt: question, maxOutputTokens: 300, maxRetries: 0,
  });
  Pet.parse(answer.object);
}
console.log("typed answers ok");
