// A session of npm's `@anthropic-ai/sdk`, and of `@ai-sdk/anthropic` for the AI SDK, unchanged, with a daemon.
//
// Usage: node session.mjs PACKAGES HOST KEY MODEL ARGUMENTS
// PACKAGES is the folder that they are installed in; the model answers as for `anthropic_client.py`.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [packages, host, key, model, given] = process.argv.slice(2);
const expected = JSON.parse(given);
const require = createRequire(pathToFileURL(`${packages}/package.json`));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);

const { default: Anthropic } = await load('@anthropic-ai/sdk');
const client = new Anthropic({ baseURL: host, apiKey: key, maxRetries: 0 });
const answer = 'one two three four five ';
const slow = [{ role: 'user', content: 'slow' }];
const both = [{ role: 'user', content: 'both' }];
const schema = { type: 'object', properties: { text: { type: 'string' } } };
const tools = ['f', 'g'].map((name) => ({ name, description: 'Does it', input_schema: schema }));
const calls = [{ name: 'f', input: expected }, { name: 'g', input: { text: 'x' } }];

// What is there.
const listed = [];
for await (const entry of client.models.list()) listed.push(entry.id);
assert(listed.includes(model), `${listed}`);
assert.equal((await client.models.retrieve(model)).display_name, model);

// Messages, whole and streamed.
const whole = await client.messages.create({ model, max_tokens: 200, messages: slow, system: 'be kind' });
assert.deepEqual(whole.content, [{ type: 'text', text: answer }]);
assert(whole._request_id.startsWith('req_') && whole.usage.output_tokens >= 5);
let text = '';
const stream = client.messages.stream({ model, max_tokens: 200, messages: slow }).on('text', (part) => (text += part));
const final = await stream.finalMessage();
assert.equal(text, answer);
assert.deepEqual([final.content, final.stop_reason], [whole.content, 'end_turn']);
const stopped = await client.messages.create({ model, max_tokens: 200, messages: slow, stop_sequences: ['three'] });
assert.deepEqual([stopped.stop_reason, stopped.stop_sequence], ['stop_sequence', 'three']);

// Two calls at once, with a thought, and their results.
const thinking = { type: 'enabled', budget_tokens: 1024 };
for (const streamed of [false, true]) {
  const body = { model, max_tokens: 2000, messages: both, tools, thinking };
  const asked = streamed ? await client.messages.stream(body).finalMessage() : await client.messages.create(body);
  assert.equal(asked.stop_reason, 'tool_use');
  assert.deepEqual([asked.content[0].type, asked.content[0].thinking], ['thinking', 'so']);
  const made = asked.content.filter((block) => block.type === 'tool_use');
  assert.deepEqual(made.map(({ name, input }) => ({ name, input })), calls);
  const results = made.map(({ id, name }) => ({ type: 'tool_result', tool_use_id: id, content: `first of ${name}` }));
  const turns = [...both, { role: 'assistant', content: asked.content }, { role: 'user', content: results }];
  const last = await client.messages.create({ model, max_tokens: 200, messages: turns, tools });
  assert.deepEqual(last.content, [{ type: 'text', text: 'All done.' }]);
}

// What is refused.
const refused = (ask) => ask().then(() => assert.fail('it was answered'), (error) => error);
const unknown = await refused(() => client.messages.create({ model: 'no-such-model', max_tokens: 1, messages: slow }));
assert(unknown instanceof Anthropic.NotFoundError && unknown.message.includes('does not exist'), `${unknown}`);
const long = [{ role: 'user', content: 'long '.repeat(200000) }];
const tooLong = await refused(() => client.messages.create({ model, max_tokens: 1, messages: long }));
assert(tooLong instanceof Anthropic.BadRequestError && tooLong.message.includes('prompt is too long'), `${tooLong}`);

// The AI SDK.
const { createAnthropic } = await load('@ai-sdk/anthropic');
const { generateText, streamText, tool, jsonSchema, stepCountIs } = await load('ai');
const provider = createAnthropic({ baseURL: `${host}/v1`, apiKey: key });
const generated = await generateText({ model: provider(model), prompt: 'slow', maxRetries: 0 });
assert.equal(generated.text, answer);
assert.equal(generated.finishReason, 'stop');
const streamed = streamText({ model: provider(model), prompt: 'slow', maxRetries: 0 });
let parts = '';
for await (const part of streamed.textStream) parts += part;
assert.equal(parts, answer);
const done = [];
const run = (name) =>
  tool({ description: 'Does it', inputSchema: jsonSchema(schema), execute: async (input) => { done.push({ name, input }); return `first of ${name}`; } });
const looped = await generateText({
  model: provider(model), prompt: 'both', tools: { f: run('f'), g: run('g') }, stopWhen: stepCountIs(3), maxRetries: 0,
});
assert.deepEqual(done, calls);
assert.equal(looped.text, 'All done.');

console.log('whole session ok');
