// A session on a WebSocket about responses of npm's `openai`, unchanged, with a daemon.
//
// Usage: node socket_session.mjs PACKAGES BASE_URL KEY MODEL
// PACKAGES is the folder that they are installed in; MODEL answers as for `socket_session.py`.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [packages, baseURL, apiKey, model] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${packages}/package.json`));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);

const { default: OpenAI } = await load('openai');
const { ResponsesWS } = await load('openai/resources/responses/ws');
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const answer = 'one two three four five ';
const ENDS = ['response.completed', 'response.incomplete', 'response.failed', 'error'];

const socket = new ResponsesWS(client);
const heard = [];
let ended = () => {};
socket.on('event', (event) => {
  heard.push(event);
  if (ENDS.includes(event.type)) ended(event);
});
// What is refused comes as an event too.
socket.on('error', () => {});

const ask = async (fields) => {
  heard.length = 0;
  const end = new Promise((resolve) => (ended = resolve));
  socket.send({ type: 'response.create', model, input: 'slow', ...fields });
  return end;
};

const first = await ask({ store: false });
assert.equal(first.type, 'response.completed');
assert.deepEqual(heard.map((event) => event.sequence_number), heard.map((_, number) => number));
const deltas = heard.filter((event) => event.type === 'response.output_text.delta').map((event) => event.delta);
assert.equal(deltas.join(''), answer);
assert.equal(first.response.output[0].content[0].text, answer);

const second = await ask({ store: false, previous_response_id: first.response.id });
assert.equal(second.response.previous_response_id, first.response.id);
const gone = await ask({ previous_response_id: first.response.id });
assert.deepEqual([gone.type, gone.status, gone.error.code], ['error', 400, 'previous_response_not_found']);

const prepared = await ask({ generate: false });
assert.deepEqual([prepared.type, prepared.response.output], ['response.completed', []]);
const kept = await client.responses.retrieve(prepared.response.id);
assert.equal(kept.status, 'completed');
const next = await ask({ input: [], previous_response_id: prepared.response.id });
assert.equal(next.response.output[0].content[0].text, answer);

// Several streams of one socket: two conversations, and a fork beside one of them.
const askAll = async (messages) => {
  heard.length = 0;
  const ends = {};
  const all = new Promise((resolve) => {
    ended = (event) => {
      ends[event.stream_id] = event;
      if (Object.keys(ends).length === messages.length) resolve(ends);
    };
  });
  for (const message of messages) {
    socket.send({ type: 'response.create', model, input: 'slow', store: false, ...message });
  }
  return all;
};

const { planner, research } = await askAll([{ stream_id: 'planner' }, { stream_id: 'research' }]);
assert.deepEqual([planner.type, research.type], ['response.completed', 'response.completed']);
for (const name of ['planner', 'research']) {
  const own = heard.filter((event) => event.stream_id === name);
  assert.deepEqual(own.map((event) => event.sequence_number), own.map((_, number) => number));
}
const previous_response_id = planner.response.id;
const both = await askAll([
  { stream_id: 'critic', previous_response_id },
  { stream_id: 'planner', previous_response_id },
]);
for (const name of ['critic', 'planner']) {
  assert.equal(both[name].response.output[0].content[0].text, answer);
  assert.equal(both[name].response.previous_response_id, previous_response_id);
}

const closed = new Promise((resolve) => socket.on('close', resolve));
socket.close();
await closed;
console.log('whole session ok');
