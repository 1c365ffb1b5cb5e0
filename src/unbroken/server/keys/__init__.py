"""Keys and the tokens they sign: JWS (RFC 7515), JWK (RFC 7517, RFC 7638), JWT (RFC 7519, RFC 8725), RFC 9068."""
