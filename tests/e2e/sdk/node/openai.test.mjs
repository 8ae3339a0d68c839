// The official openai package for JavaScript, unmodified but for `baseURL`. Run by test_openai_node.py, which starts the servers:
// GATEWAY is the gateway's base URL, DOUBLE the origin of the upstream behind it, SIM the base URL of a gateway with no configuration.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI, { toFile } from 'openai';

const { GATEWAY, DOUBLE, SIM } = process.env;
const client = new OpenAI({ baseURL: GATEWAY, apiKey: 'sk-node-client', maxRetries: 0, timeout: 10_000 });
const sim = new OpenAI({ baseURL: SIM, apiKey: 'none', maxRetries: 0, timeout: 10_000 });
const model = 'gpt-4.1';
const messages = [{ role: 'user', content: 'one two three' }];
const weather = {
  type: 'function',
  function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] } },
};

async function answerNext(answer) {
  const told = await fetch(`${DOUBLE}/_double/next`, { method: 'POST', body: JSON.stringify(answer) });
  assert.equal(told.status, 200);
}

function refusal(status, message, type, code) {
  return { status, body: JSON.stringify({ error: { message, type, param: null, code } }) };
}

async function last() {
  return (await fetch(`${DOUBLE}/_double/last`)).json();
}

async function cancelled() {
  for (let tries = 0; tries < 100; tries += 1) {
    if ((await last()).cancelled) return true;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return false;
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

function text(chunks) {
  return chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? '').join('');
}

test('a chat answers, and its request id is shown', async () => {
  const completion = await client.chat.completions.create({ model, messages });
  assert.equal(completion.choices[0].message.content, 'You said: one two three');
  assert.equal(completion.usage.total_tokens, 14);
  assert.ok(completion._request_id);
  assert.equal(completion.x_double.kept, 1);
});

test('the response headers can be read', async () => {
  const { data, response } = await client.chat.completions.create({ model, messages }).withResponse();
  assert.equal(data.model, model);
  assert.equal(response.headers.get('x-comporta-provider'), 'double');
});

test('unknown fields reach the upstream, the key of the client does not', async () => {
  await client.chat.completions.create({ model, messages, x_new: { deep: [1, null, 'é'] } });
  const seen = await last();
  assert.deepEqual(JSON.parse(Buffer.from(seen.body, 'latin1').toString()).x_new, { deep: [1, null, 'é'] });
  assert.ok(!JSON.stringify(seen).includes('sk-node-client'));
});

test('a stream arrives whole and without usage that was not asked for', async () => {
  const chunks = await collect(await client.chat.completions.create({ model, messages, stream: true }));
  assert.equal(text(chunks), 'You said: one two three');
  assert.equal(chunks.at(-1).choices[0].finish_reason, 'stop');
  assert.ok(chunks.every((chunk) => !chunk.usage));
});

test('usage that was asked for comes last', async () => {
  const chunks = await collect(
    await client.chat.completions.create({ model, messages, stream: true, stream_options: { include_usage: true } }),
  );
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.equal(chunks.at(-1).usage.total_tokens, 14);
});

test('tools are called, whole and streamed', async () => {
  const completion = await client.chat.completions.create({ model, messages, tools: [weather] });
  assert.deepEqual(JSON.parse(completion.choices[0].message.tool_calls[0].function.arguments), { city: 'Lisbon' });
  const streamed = await client.chat.completions.stream({ model, messages, tools: [weather] }).finalChatCompletion();
  assert.equal(streamed.choices[0].finish_reason, 'tool_calls');
  assert.equal(streamed.choices[0].message.tool_calls[0].id, 'call_1');
  assert.deepEqual(JSON.parse(streamed.choices[0].message.tool_calls[0].function.arguments), { city: 'Lisbon' });
});

test('a JSON schema is parsed', async () => {
  const schema = { type: 'object', properties: { city: { type: 'string' } } };
  const completion = await client.chat.completions.parse({
    model, messages, response_format: { type: 'json_schema', json_schema: { name: 'weather', schema } },
  });
  assert.deepEqual(JSON.parse(completion.choices[0].message.content), { city: 'Lisbon', celsius: 21 });
});

test('embeddings come as numbers, packed or not', async () => {
  for (const encoding_format of [undefined, 'float']) {
    const answer = await client.embeddings.create({ model: 'text-embedding-3-small', input: 'a', encoding_format });
    assert.deepEqual([...answer.data[0].embedding], [0.25, -0.5, 0.125]);
  }
});

test('models are listed and retrieved', async () => {
  const names = (await collect(await client.models.list())).map((entry) => entry.id);
  assert.ok(names.includes(model), names.join());
  assert.equal((await client.models.retrieve(model)).id, model);
});

for (const [status, kind, type, code] of [
  [400, OpenAI.BadRequestError, 'invalid_request_error', 'context_length_exceeded'],
  [404, OpenAI.NotFoundError, 'invalid_request_error', 'model_not_found'],
  [409, OpenAI.ConflictError, 'invalid_request_error', 'resource_busy'],
  [422, OpenAI.UnprocessableEntityError, 'invalid_request_error', 'bad_value'],
  [429, OpenAI.RateLimitError, 'requests', 'rate_limit_exceeded'],
  [500, OpenAI.InternalServerError, 'server_error', 'server_error'],
  [503, OpenAI.InternalServerError, 'server_error', 'engine_overloaded'],
]) {
  test(`${status} is its own class, with its message, type and code`, async () => {
    await answerNext(refusal(status, `told ${status} for a reason`, type, code));
    await assert.rejects(client.chat.completions.create({ model, messages }), (error) => {
      assert.ok(error instanceof kind, error.constructor.name);
      assert.match(error.message, new RegExp(`told ${status} for a reason`));
      assert.deepEqual([error.status, error.type, error.code], [status, type, code]);
      assert.ok(error.requestID);
      return true;
    });
  });
}

for (const status of [401, 403]) {
  test(`a refused key (${status}) is the gateway's trouble`, async () => {
    await answerNext(refusal(status, 'Incorrect API key provided', 'invalid_request_error', 'invalid_api_key'));
    await assert.rejects(client.chat.completions.create({ model, messages }), (error) => {
      assert.ok(error instanceof OpenAI.InternalServerError, error.constructor.name);
      assert.deepEqual([error.status, error.code], [502, 'provider_auth']);
      return true;
    });
  });
}

test('an error in mid-stream is thrown', async () => {
  const chunk = { id: '1', object: 'chat.completion.chunk', created: 1, model, choices: [{ index: 0, delta: { role: 'assistant', content: 'so' } }] };
  const error = { error: { message: 'the engine gave up', type: 'server_error', param: null, code: 'engine_failed' } };
  await answerNext({ frames: [chunk, error].map((value) => `data: ${JSON.stringify(value)}\n\n`), content_type: 'text/event-stream' });
  const seen = [];
  await assert.rejects(
    async () => {
      for await (const part of await client.chat.completions.create({ model, messages, stream: true })) seen.push(part);
    },
    (caught) => caught instanceof OpenAI.APIError && /engine gave up/.test(caught.message) && caught.code === 'engine_failed',
  );
  assert.equal(text(seen), 'so');
});

test('a stream that is aborted stops the upstream', async () => {
  const chunk = { id: '1', object: 'chat.completion.chunk', created: 1, model, choices: [{ index: 0, delta: { role: 'assistant', content: 'so' } }] };
  await answerNext({ frames: [`data: ${JSON.stringify(chunk)}\n\n`], content_type: 'text/event-stream', ending: 'hang' });
  const stream = await client.chat.completions.create({ model, messages, stream: true });
  for await (const part of stream) {
    assert.equal(text([part]), 'so');
    stream.controller.abort();
  }
  assert.ok(await cancelled());
});

test('a client that gives up stops the upstream', async () => {
  await answerNext({ ending: 'hang' });
  const asked = client.chat.completions.create({ model, messages }, { timeout: 400 });
  await assert.rejects(asked, OpenAI.APIConnectionTimeoutError);
  assert.ok(await cancelled());
});

test('a file goes up, and a response streams its typed events', async () => {
  const file = await client.files.create({ file: await toFile(Buffer.from('{"a": 1}\n'), 'data.jsonl'), purpose: 'batch' });
  assert.deepEqual([file.filename, file.bytes], ['data.jsonl', 9]);
  const events = await collect(await client.responses.create({ model, input: 'Hello', stream: true }));
  assert.equal(events[0].type, 'response.created');
  assert.equal(events.at(-1).response.output[0].content[0].text, 'Hello there');
});

test('the simulated provider chats, streams and embeds', async () => {
  const completion = await sim.chat.completions.create({ model: 'sim', messages });
  assert.ok(completion.choices[0].message.content);
  assert.ok(text(await collect(await sim.chat.completions.create({ model: 'sim', messages, stream: true }))));
  const embedded = await sim.embeddings.create({ model: 'sim', input: ['a gate', 'a gate'] });
  assert.deepEqual(embedded.data[0].embedding, embedded.data[1].embedding);
});
