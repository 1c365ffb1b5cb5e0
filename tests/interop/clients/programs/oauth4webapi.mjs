// oauth4webapi: discovery by RFC 8414; refreshes; RFC 7662; RFC 9068 by our published keys; RFC 7009.

import { told } from './told.mjs';

const oauth = await import('oauth4webapi');

await told(async ({ url, client_id, audience, refresh_token, service_token }) => {
  const plain = { [oauth.allowInsecureRequests]: true };
  const client = { client_id };
  const issuer = new URL(url);
  const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...plain });
  const as = await oauth.processDiscoveryResponse(issuer, found);

  const refresh = async (token) => {
    const answer = await oauth.refreshTokenGrantRequest(as, client, oauth.None(), token, plain);
    return oauth.processRefreshTokenResponse(as, client, answer);
  };
  const valid = (token) => {
    const request = new Request(`${url}/orders`, { headers: { authorization: `Bearer ${token}` } });
    return oauth.validateJwtAccessToken(as, request, audience, plain);
  };
  const introspect = async (token) => {
    const asService = (_as, _client, _body, headers) => headers.set('authorization', `Bearer ${service_token}`);
    const answer = await oauth.introspectionRequest(as, client, asService, token, plain);
    return oauth.processIntrospectionResponse(as, client, answer);
  };

  const tokens = [];
  for (let last = refresh_token; tokens.length < 3; last = tokens.at(-1).refresh_token) tokens.push(await refresh(last));
  const { refresh_token: newest } = tokens.at(-1);
  const together = await Promise.all(Array.from({ length: 8 }, () => refresh(newest)));
  const { access_token, refresh_token: final } = together[0];
  const claims = await valid(access_token);
  const active = await introspect(access_token);
  await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, oauth.None(), final, plain));
  const inactive = await introspect(access_token);
  const refused = await refresh(final).catch((error) => ({ error: error.error, status: error.status }));
  return { tokens, together, claims, active, inactive, refused };
});
