// `fetch` as a page has it in a browser: other origins are asked first, and of their answers only what they allow is shown.
// Source: https://fetch.spec.whatwg.org/#cors-preflight-fetch-0, #cors-check, #concept-filtered-response-cors

const SAFE_METHODS = ['GET', 'HEAD', 'POST'];
const SAFE_TYPES = ['application/x-www-form-urlencoded', 'multipart/form-data', 'text/plain'];
const SAFE_RESPONSE = ['cache-control', 'content-language', 'content-length', 'content-type', 'expires', 'last-modified', 'pragma'];
const SET_BY_THE_BROWSER = ['accept-encoding', 'connection', 'content-length', 'host', 'origin'];

const listed = (headers, name) => (headers.get(name) ?? '').split(',').map((each) => each.trim().toLowerCase()).filter(Boolean);

function isSafe(name, value) {
  if (name === 'content-type') return SAFE_TYPES.includes(value.split(';')[0].trim().toLowerCase());
  return ['accept', 'accept-language', 'content-language'].includes(name) && value.length <= 128;
}

function check(origin, answer, what) {
  const allowed = answer.headers.get('access-control-allow-origin');
  if (allowed !== '*' && allowed !== origin) throw new TypeError(`${what}: allows ${allowed}, not ${origin}`);
}

async function preflight(origin, request, unsafe) {
  const headers = { origin, 'access-control-request-method': request.method };
  if (unsafe.length) headers['access-control-request-headers'] = unsafe.join(',');
  const answer = await fetch(request.url, { method: 'OPTIONS', headers });
  check(origin, answer, 'preflight');
  if (!answer.ok) throw new TypeError(`preflight: ${answer.status}`);
  const methods = listed(answer.headers, 'access-control-allow-methods').map((each) => each.toUpperCase());
  const names = listed(answer.headers, 'access-control-allow-headers');
  if (!SAFE_METHODS.includes(request.method) && !methods.includes(request.method)) throw new TypeError(`preflight: no ${request.method}`);
  for (const name of unsafe) if (!names.includes(name)) throw new TypeError(`preflight: no ${name}`);
}

/** What a page of `origin` has as its `fetch`, and in `seen` how many preflights it took. */
export function pageOf(origin) {
  const seen = { preflights: 0 };
  async function pageFetch(input, init = {}) {
    const request = new Request(input, { ...init, duplex: 'half' });
    const unsafe = [...request.headers].filter(([name, value]) => !SET_BY_THE_BROWSER.includes(name) && !isSafe(name, value)).map(([name]) => name);
    if (unsafe.length || !SAFE_METHODS.includes(request.method)) {
      seen.preflights += 1;
      await preflight(origin, request, unsafe);
    }
    request.headers.set('origin', origin);
    const answer = await fetch(request);
    check(origin, answer, 'answer');
    const shown = [...SAFE_RESPONSE, ...listed(answer.headers, 'access-control-expose-headers')];
    const headers = [...answer.headers].filter(([name]) => shown.includes(name));
    return new Response(answer.body, { status: answer.status, statusText: answer.statusText, headers });
  }
  return { fetch: pageFetch, seen };
}
