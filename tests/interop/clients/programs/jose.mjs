// jose: verifies an access token by our published keys (RFC 9068 §4), and says what the token says.

import { told } from './told.mjs';

const { createRemoteJWKSet, jwtVerify } = await import('jose');

await told(async ({ url, access_token, audience }) => {
  const keys = createRemoteJWKSet(new URL(`${url}/.well-known/jwks.json`));
  const verified = await jwtVerify(access_token, keys, { issuer: url, audience, typ: 'at+jwt' });
  return { payload: verified.payload, header: verified.protectedHeader };
});
