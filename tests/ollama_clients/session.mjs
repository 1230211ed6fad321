// A session of npm's `ollama`, and of `ai-sdk-ollama` for the AI SDK, unchanged, with a daemon.
//
// Usage: node session.mjs PACKAGES HOST MODEL ARGUMENTS REAL
// PACKAGES is the folder that they are installed in; the models answer as for `home_assistant.py`.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [packages, host, model, given, real] = process.argv.slice(2);
const expected = JSON.parse(given);
const require = createRequire(pathToFileURL(`${packages}/package.json`));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);

const { Ollama } = await load('ollama');
const client = new Ollama({ host });
const answer = 'one two three four five ';
const slow = [{ role: 'user', content: 'slow' }];
const both = [{ role: 'user', content: 'both' }];
const tool = (name) => ({
  type: 'function',
  function: { name, description: 'Does it', parameters: { type: 'object', properties: { text: { type: 'string' } } } },
});
const tools = [tool('f'), tool('g')];
const calls = [{ name: 'f', arguments: expected }, { name: 'g', arguments: { text: 'x' } }];
const plain = (call) => ({ name: call.function.name, arguments: call.function.arguments });

// What is there, loaded and unloaded.
const listed = (await client.list()).models.map((entry) => entry.model);
assert(listed.includes(`${model}:latest`), `${listed}`);
const shown = await client.show({ model });
assert(shown.capabilities.includes('tools') && shown.model_info['general.architecture']);
assert.equal((await client.generate({ model, prompt: '' })).done_reason, 'load');
const running = (await client.ps()).models.find((entry) => entry.model === `${model}:latest`);
assert(running.digest.length === 64 && new Date(running.expires_at) > new Date());
assert.equal((await client.generate({ model, prompt: '', keep_alive: 0 })).done_reason, 'unload');

// Chats and texts, whole and streamed.
const whole = await client.chat({ model, messages: slow, keep_alive: '5m' });
assert.equal(whole.message.content, answer);
assert(whole.eval_count >= 5 && whole.total_duration > 0);
let text = '';
for await (const part of await client.chat({ model, messages: slow, stream: true })) text += part.message.content;
assert.equal(text, answer);
assert.equal((await client.generate({ model, prompt: 'slow', system: 'be kind' })).response, answer);

// Two calls at once, with a thought, and their results.
for (const stream of [false, true]) {
  const asked = await client.chat({ model, messages: both, tools, think: true, stream });
  const said = { thinking: '', calls: [] };
  for await (const part of stream ? asked : [asked]) {
    said.thinking += part.message.thinking ?? '';
    said.calls.push(...(part.message.tool_calls ?? []));
  }
  assert.equal(said.thinking, 'so');
  assert.deepEqual(said.calls.map(plain), calls);
  const turn = { role: 'assistant', content: '', tool_calls: said.calls };
  const results = calls.map(({ name }) => ({ role: 'tool', tool_name: name, content: `first of ${name}` }));
  const last = await client.chat({ model, messages: [...both, turn, ...results], tools, think: false });
  assert.equal(last.message.content, 'All done.');
}

// An answer of a form, embeddings, and a model that is made and removed.
const schema = { type: 'object', properties: { on: { type: 'boolean' } }, required: ['on'] };
const lamp = [{ role: 'user', content: 'Is the lamp on?' }];
const formed = await client.chat({ model: real, messages: lamp, format: schema });
assert.equal(typeof JSON.parse(formed.message.content).on, 'boolean');
const embedded = await client.embed({ model, input: ['one', 'one two three'] });
assert.deepEqual(embedded.embeddings.map((row) => row.length), [8, 8]);
assert.equal((await client.create({ model: 'kind', from: model, system: 'be kind' })).status, 'success');
assert.equal((await client.chat({ model: 'kind', messages: slow })).message.content, answer);
assert.equal((await client.delete({ model: 'kind' })).status, 'success');

// What is refused.
for (const refused of [
  () => client.chat({ model: 'no-such-model', messages: slow }),
  () => client.chat({ model: 'kind', messages: slow }),
]) {
  await assert.rejects(refused, (error) => error.status_code === 404 && error.message.includes('not found'));
}

// The AI SDK over the same.
const { createOllama } = await load('ai-sdk-ollama');
const { generateText, streamText, generateObject, embed, tool: sdkTool, jsonSchema, stepCountIs } = await load('ai');
const provider = createOllama({ baseURL: host });
const simple = await generateText({ model: provider(model), prompt: 'slow' });
assert.equal(simple.text, answer);
const stream = streamText({ model: provider(model), prompt: 'slow' });
let streamed = '';
for await (const part of stream.textStream) streamed += part;
assert.equal(streamed, answer);
const made = [];
const sdk = (name) => sdkTool({
  description: 'Does it',
  inputSchema: jsonSchema({ type: 'object', properties: { text: { type: 'string' } } }),
  execute: async (input) => { made.push({ name, arguments: input }); return `first of ${name}`; },
});
const agent = await generateText({
  model: provider(model), prompt: 'both', tools: { f: sdk('f'), g: sdk('g') }, stopWhen: stepCountIs(3),
});
assert.deepEqual(made, calls);
assert.equal(agent.text, 'All done.');
assert.equal(agent.steps[0].reasoningText, 'so');
const { object } = await generateObject({
  model: provider(real), prompt: 'Is the lamp on?', schema: jsonSchema(schema),
});
assert.equal(typeof object.on, 'boolean');
await assert.rejects(
  () => generateText({ model: provider('no-such-model'), prompt: 'slow', maxRetries: 0 }),
  (error) => error.message.includes('not found'),
);
const { embedding } = await embed({ model: provider.embedding(model), value: 'one' });
assert.equal(embedding.length, 8);

console.log('whole session ok');
