// openid-client: discovery by RFC 8414; refreshes; RFC 7662; RFC 7009. Its own fetch, with the service's token added
// to introspection, which it cannot send by itself.

import { told } from './told.mjs';

const oidc = await import('openid-client');

await told(async ({ url, client_id, refresh_token, service_token }) => {
  const settings = { algorithm: 'oauth2', execute: [oidc.allowInsecureRequests] };
  const config = await oidc.discovery(new URL(url), client_id, undefined, oidc.None(), settings);
  config[oidc.customFetch] = (where, options) => {
    if (where === config.serverMetadata().introspection_endpoint) {
      options.headers.authorization = `Bearer ${service_token}`;
    }
    return fetch(where, options);
  };

  const refresh = (token) => oidc.refreshTokenGrant(config, token);
  const tokens = [];
  for (let last = refresh_token; tokens.length < 3; last = tokens.at(-1).refresh_token) tokens.push(await refresh(last));
  const { refresh_token: newest } = tokens.at(-1);
  const together = await Promise.all(Array.from({ length: 8 }, () => refresh(newest)));
  const { access_token, refresh_token: final } = together[0];
  const active = await oidc.tokenIntrospection(config, access_token);
  await oidc.tokenRevocation(config, final);
  const inactive = await oidc.tokenIntrospection(config, access_token);
  const refused = await refresh(final).catch((error) => ({ error: error.error, status: error.status }));
  return { tokens, together, active, inactive, refused };
});
