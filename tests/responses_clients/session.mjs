// A session about responses of npm's `openai`, and of `@ai-sdk/openai` for the AI SDK, unchanged, with a daemon.
//
// Usage: node session.mjs PACKAGES BASE_URL KEY OTHER_KEY MODEL ARGUMENTS REAL
// PACKAGES is the folder that they are installed in; the models answer as for `openai_responses_client.py`.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [packages, baseURL, apiKey, otherKey, model, given, real] = process.argv.slice(2);
const expected = JSON.parse(given);
const require = createRequire(pathToFileURL(`${packages}/package.json`));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);

const { default: OpenAI } = await load('openai');
const { zodTextFormat } = await load('openai/helpers/zod');
const { z } = await load('zod');
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const other = new OpenAI({ baseURL, apiKey: otherKey, maxRetries: 0 });
const answer = 'one two three four five ';
const schema = { type: 'object', properties: { text: { type: 'string' } } };
const tools = ['f', 'g'].map((name) => ({ type: 'function', name, description: 'Does it', parameters: schema, strict: false }));
const calls = [{ name: 'f', input: expected }, { name: 'g', input: { text: 'x' } }];

const refused = (ask, status, code) =>
  ask().then(
    () => assert.fail(`not refused: ${code}`),
    (error) => {
      assert.deepEqual([error.status, error.code], [status, code], `${error}`);
      return error;
    },
  );

// A response, whole and streamed.
const whole = await client.responses.create({ model, input: 'slow', metadata: { a: 'b' } });
assert.deepEqual([whole.output_text, whole.status, whole.metadata], [answer, 'completed', { a: 'b' }]);
let text = '';
const events = [];
const stream = client.responses
  .stream({ model, input: 'slow' })
  .on('response.output_text.delta', (event) => (text = event.snapshot))
  .on('event', (event) => events.push(event));
const final = await stream.finalResponse();
assert.deepEqual([final.output_text, text], [answer, answer]);
assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, number) => number));
assert.deepEqual([events.at(0).type, events.at(-1).type], ['response.created', 'response.completed']);
const kinds = [];
for await (const event of await client.responses.create({ model, input: 'slow', stream: true })) kinds.push(event.type);
assert.deepEqual(kinds, events.map((event) => event.type));
const cut = await client.responses.create({ model, input: 'slow', max_output_tokens: 2 });
assert.deepEqual([cut.status, cut.incomplete_details.reason], ['incomplete', 'max_output_tokens']);

// What is kept, and for whom.
assert.deepEqual((await client.responses.retrieve(whole.id)).output, whole.output);
const items = [];
for await (const item of client.responses.inputItems.list(whole.id)) items.push(item.content[0].text);
assert.deepEqual(items, ['slow']);
await refused(() => other.responses.retrieve(whole.id), 404, 'previous_response_not_found');
await client.responses.delete(whole.id);
const gone = { model, input: 'slow', previous_response_id: whole.id };
await refused(() => client.responses.create(gone), 400, 'previous_response_not_found');

// An agent's loop, in which the daemon keeps the conversation.
for (const streamed of [false, true]) {
  const body = { model, input: 'both', tools };
  const called = streamed ? await client.responses.stream(body).finalResponse() : await client.responses.parse(body);
  assert.deepEqual(called.output.map((item) => item.type), ['reasoning', 'message', 'function_call', 'function_call']);
  assert.equal(called.output[0].content[0].text, 'so');
  const made = called.output.slice(2);
  assert.deepEqual(made.map((call) => ({ name: call.name, input: JSON.parse(call.arguments) })), calls);
  const input = made.map(({ call_id, name }) => ({ type: 'function_call_output', call_id, output: `first of ${name}` }));
  const last = await client.responses.create({ model, input, tools, previous_response_id: called.id });
  assert.deepEqual([last.output_text, last.previous_response_id], ['All done.', called.id]);
}

// Kept to a schema, of a real model.
{
  const text = { format: zodTextFormat(z.object({ is_blue: z.boolean() }), 'sky') };
  const parsed = await client.responses.parse({ model: real, input: 'Is the sky blue?', temperature: 0, text });
  assert.equal(typeof parsed.output_parsed.is_blue, 'boolean');
}

// What is refused, before a stream and in its middle.
const unknown = await refused(() => client.responses.create({ model: 'absent', input: 'x' }), 404, 'model_not_found');
assert(unknown instanceof OpenAI.NotFoundError, `${unknown}`);
const dies = await client.responses.create({ model, input: 'die', stream: true });
const failed = async () => {
  for await (const event of dies) assert.notEqual(event.type, 'response.completed');
};
await failed().then(
  () => assert.fail('a stream that fails raises'),
  (error) => assert(['worker_died', 'answer_interrupted'].includes(error.code), `${error}`),
);

// The AI SDK, whose provider of OpenAI's asks for responses by itself.
const { createOpenAI } = await load('@ai-sdk/openai');
const { generateText, streamText, tool, jsonSchema, stepCountIs } = await load('ai');
const provider = createOpenAI({ baseURL, apiKey });
const generated = await generateText({ model: provider(model), prompt: 'slow', maxRetries: 0 });
assert.deepEqual([generated.text, generated.finishReason], [answer, 'stop']);
const id = generated.providerMetadata.openai.responseId;
assert(id.startsWith('resp_'), id);
let parts = '';
for await (const part of streamText({ model: provider(model), prompt: 'slow', maxRetries: 0 }).textStream) parts += part;
assert.equal(parts, answer);
const continued = await generateText({
  model: provider(model), prompt: 'slow', maxRetries: 0, providerOptions: { openai: { previousResponseId: id } },
});
assert.equal(continued.text, answer);
for (const store of [true, false]) {
  const done = [];
  const run = (name) =>
    tool({
      description: 'Does it',
      inputSchema: jsonSchema(schema),
      execute: async (input) => {
        done.push({ name, input });
        return `first of ${name}`;
      },
    });
  const looped = await generateText({
    model: provider(model), prompt: 'both', tools: { f: run('f'), g: run('g') }, stopWhen: stepCountIs(3), maxRetries: 0,
    providerOptions: { openai: { store } },
  });
  assert.deepEqual(done, calls);
  assert.equal(looped.text, 'All done.');
}

console.log('whole session ok');
