// openid-client with DPoP (RFC 9449): the same as dpop_oauth4webapi.mjs. The library repeats requests by itself.

import { told } from './told.mjs';

const oidc = await import('openid-client');

await told(async ({ url, client_id, username, password, alg }) => {
  const settings = { algorithm: 'oauth2', execute: [oidc.allowInsecureRequests] };
  const config = await oidc.discovery(new URL(url), client_id, undefined, oidc.None(), settings);
  const keys = await oidc.randomDPoPKeyPair(alg);
  const DPoP = oidc.getDPoPHandle(config, keys);
  const refresh = (token, handle = DPoP) => oidc.refreshTokenGrant(config, token, undefined, { DPoP: handle });
  const me = (token) =>
    oidc
      .fetchProtectedResource(config, token, new URL(`${url}/auth/session?x=1`), 'GET', undefined, undefined, { DPoP })
      .then((answer) => answer.json());

  const tokens = [await oidc.genericGrantRequest(config, 'password', { username, password }, { DPoP })];
  for (let turn = 0; turn < 3; turn += 1) tokens.push(await refresh(tokens.at(-1).refresh_token));
  const { access_token, refresh_token } = tokens.at(-1);
  const claims = await me(access_token);
  const together = await Promise.all(Array.from({ length: 8 }, () => me(access_token)));
  const other = oidc.getDPoPHandle(config, await oidc.randomDPoPKeyPair(alg));
  const stolen = await refresh(refresh_token, other).catch(({ error, status }) => ({ error, status }));
  const bearer = await fetch(`${url}/auth/session`, { headers: { authorization: `Bearer ${access_token}` } });
  const after = await refresh(refresh_token);
  const jkt = await DPoP.calculateThumbprint();
  const algs = config.serverMetadata().dpop_signing_alg_values_supported;
  return { tokens: [...tokens, after], claims, together, stolen, bearer: bearer.status, jkt, algs };
});
