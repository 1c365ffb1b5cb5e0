// oidc-provider with rotation; its API is its own userinfo endpoint, /me. Beside it, as in loopback.py:
// GET /count, POST /forward?seconds=N; the port goes into a file; the process ends with its standard input.
// With a third argument, dpop, all tokens are bound to keys (RFC 9449), and each proof needs a nonce.

import { renameSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [port, folder, binding] = process.argv.slice(2);
const isBound = binding === 'dpop';
const found = createRequire(`${folder}/`).resolve('oidc-provider');
const { default: Provider } = await import(pathToFileURL(found));

let ahead = 0;
const now = Date.now;
Date.now = () => now() + ahead * 1000;

const counts = { refreshes: 0, challenges: 0 };
let answer;

const server = createServer((request, response) => {
  const url = new URL(request.url, 'http://127.0.0.1');
  if (url.pathname === '/forward') ahead += Number(url.searchParams.get('seconds'));
  if (url.pathname === '/forward' || url.pathname === '/count') {
    response.setHeader('content-type', 'application/json').end(JSON.stringify(counts));
    return;
  }
  if (url.pathname === '/token') counts.refreshes += 1;
  response.on('finish', () => {
    if (url.pathname !== '/token' && response.statusCode === 401) counts.challenges += 1;
  });
  answer(request, response);
});

server.listen(Number(port), '127.0.0.1', () => {
  const listening = server.address().port;
  const provider = new Provider(`http://127.0.0.1:${listening}`, {
    clients: [{
      client_id: 'app',
      token_endpoint_auth_method: 'none',
      grant_types: [
        'authorization_code', 'refresh_token', ...(isBound ? ['urn:ietf:params:oauth:grant-type:device_code'] : []),
      ],
      redirect_uris: ['http://127.0.0.1/landed', 'http://127.0.0.1/callback'],
      application_type: 'native',
      ...(isBound && { dpop_bound_access_tokens: true }),
    }],
    features: {
      revocation: { enabled: true },
      dPoP: { enabled: isBound, nonceSecret: Buffer.alloc(32, 7), requireNonce: () => isBound },
      deviceFlow: { enabled: isBound },
    },
    ...(isBound && { enabledJWA: { dPoPSigningAlgValues: ['ES256', 'Ed25519', 'EdDSA'] } }),
    rotateRefreshToken: true,
    ttl: { AccessToken: 300, RefreshToken: 86400, Grant: 86400, Session: 86400, Interaction: 600, IdToken: 300 },
    cookies: { keys: ['a key for tests'] },
  });
  answer = provider.callback();
  writeFileSync(`${folder}/port.new`, String(listening));
  renameSync(`${folder}/port.new`, `${folder}/port`);
});

process.stdin.on('end', () => process.exit(0)).resume();
