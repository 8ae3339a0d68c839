// The official openai package in a page: with a `fetch` that shows what a browser would. Run by test_openai_node.py.
// GATEWAY is the base URL of a gateway whose pages are those of PAGE, DOUBLE the origin of the upstream behind it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI, { toFile } from 'openai';
import { pageOf } from './page.mjs';

const { GATEWAY, DOUBLE, PAGE } = process.env;
const page = pageOf(PAGE);
const options = { baseURL: GATEWAY, apiKey: 'sk-page', maxRetries: 0, timeout: 10_000, dangerouslyAllowBrowser: true, organization: 'org-page' };
const client = new OpenAI({ ...options, fetch: page.fetch });
const model = 'gpt-4.1';
const messages = [{ role: 'user', content: 'one two three' }];

async function answerNext(answer) {
  const told = await fetch(`${DOUBLE}/_double/next`, { method: 'POST', body: JSON.stringify(answer) });
  assert.equal(told.status, 200);
}

test('a chat answers after a preflight, and the page reads what the gateway says of it', async () => {
  const { data, response } = await client.chat.completions.create({ model, messages }).withResponse();
  assert.equal(data.choices[0].message.content, 'You said: one two three');
  assert.equal(page.seen.preflights, 1);
  assert.match(data._request_id, /^req_/);
  assert.equal(response.headers.get('x-comporta-provider'), 'double');
  assert.ok(response.headers.get('openai-processing-ms'));
});

test('a stream comes in pieces', async () => {
  let text = '';
  for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) text += chunk.choices[0]?.delta?.content ?? '';
  assert.equal(text, 'You said: one two three');
});

test('a form goes through', async () => {
  const file = await client.files.create({ file: await toFile(Buffer.from('hello'), 'a.txt'), purpose: 'assistants' });
  assert.ok(file.id);
});

test('a refusal is an error with its status, code and id', async () => {
  const error = { error: { message: 'slow down', type: 'requests', param: null, code: 'rate_limit_exceeded' } };
  await answerNext({ status: 429, body: JSON.stringify(error) });
  await assert.rejects(client.chat.completions.create({ model, messages }), (found) => {
    assert.ok(found instanceof OpenAI.RateLimitError);
    assert.match(found.requestID, /^req_/);
    return found.code === 'rate_limit_exceeded';
  });
});

test('a page of another origin sees nothing', async () => {
  const strange = new OpenAI({ ...options, fetch: pageOf('https://elsewhere.example').fetch });
  await assert.rejects(strange.models.list(), OpenAI.APIConnectionError);
});
