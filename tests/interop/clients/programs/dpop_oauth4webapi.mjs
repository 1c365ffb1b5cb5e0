// oauth4webapi with DPoP (RFC 9449): a login, refreshes and requests that prove a key. The library learns nonces.

import { told } from './told.mjs';

const oauth = await import('oauth4webapi');

await told(async ({ url, client_id, username, password, alg }) => {
  const plain = { [oauth.allowInsecureRequests]: true };
  const client = { client_id };
  const issuer = new URL(url);
  const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...plain });
  const as = await oauth.processDiscoveryResponse(issuer, found);
  const keys = await oauth.generateKeyPair(alg);
  const DPoP = oauth.DPoP(client, keys);
  let repetitions = 0;
  const repeated = async (send) => {
    try {
      return await send();
    } catch (error) {
      if (!oauth.isDPoPNonceError(error)) throw error;
      repetitions += 1;
      return send();
    }
  };
  const login = () =>
    oauth
      .genericTokenEndpointRequest(as, client, oauth.None(), 'password', new URLSearchParams({ username, password }), {
        DPoP,
        ...plain,
      })
      .then((answer) => oauth.processGenericTokenEndpointResponse(as, client, answer));
  const refresh = (token, handle = DPoP) =>
    oauth
      .refreshTokenGrantRequest(as, client, oauth.None(), token, { DPoP: handle, ...plain })
      .then((answer) => oauth.processRefreshTokenResponse(as, client, answer));
  const me = (token) =>
    oauth
      .protectedResourceRequest(token, 'GET', new URL(`${url}/auth/session?x=1`), undefined, undefined, { DPoP, ...plain })
      .then((answer) => answer.json());

  const tokens = [await repeated(login)];
  for (let turn = 0; turn < 3; turn += 1) tokens.push(await repeated(() => refresh(tokens.at(-1).refresh_token)));
  const { access_token, refresh_token } = tokens.at(-1);
  const claims = await repeated(() => me(access_token));
  const together = await Promise.all(Array.from({ length: 8 }, () => repeated(() => me(access_token))));
  const other = oauth.DPoP(client, await oauth.generateKeyPair(alg));
  const stolen = await repeated(() => refresh(refresh_token, other)).catch(({ error, status }) => ({ error, status }));
  const bearer = await fetch(`${url}/auth/session`, { headers: { authorization: `Bearer ${access_token}` } });
  const after = await repeated(() => refresh(refresh_token));
  const jkt = await DPoP.calculateThumbprint();
  const algs = as.dpop_signing_alg_values_supported;
  return { tokens: [...tokens, after], claims, together, stolen, bearer: bearer.status, jkt, algs, repetitions };
});
