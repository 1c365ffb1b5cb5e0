// oidc-client-ts, which is made for browsers: a window of a few lines, storage in memory. It reads our RFC 8414
// metadata by its setting metadataUrl, renews silently by the refresh token, and revokes.

import { told } from './told.mjs';

globalThis.window = globalThis;
globalThis.location ??= new URL('http://127.0.0.1/');
const { InMemoryWebStorage, User, UserManager, WebStorageStateStore } = await import('oidc-client-ts');

const inMemory = () => new WebStorageStateStore({ store: new InMemoryWebStorage() });

await told(async ({ url, client_id, access_token, refresh_token, metadata }) => {
  const manager = new UserManager({
    authority: url,
    metadataUrl: url + metadata,
    client_id,
    redirect_uri: 'http://127.0.0.1/landed',
    automaticSilentRenew: false,
    revokeTokenTypes: ['refresh_token'],
    userStore: inMemory(),
    stateStore: inMemory(),
  });
  const renewed = ({ access_token, refresh_token, expires_in, token_type, scope }) =>
    ({ access_token, refresh_token, expires_in, token_type, scope });
  const profile = { sub: 'ada', iss: url, aud: client_id, exp: 0, iat: 0 };
  await manager.storeUser(new User({ access_token, refresh_token, token_type: 'Bearer', scope: 'read', profile }));

  const tokens = [];
  while (tokens.length < 3) tokens.push(renewed(await manager.signinSilent()));
  const together = (await Promise.all(Array.from({ length: 8 }, () => manager.signinSilent()))).map(renewed);
  const last = await manager.getUser();
  await manager.revokeTokens();
  await manager.storeUser(last);
  const refused = await manager.signinSilent().catch((error) => ({ error: error.error }));
  return { tokens, together, refused };
});
