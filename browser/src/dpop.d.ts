/** A request that is sent with proofs. */
export interface ProvenRequest<R> {
  method: string;
  url: string;
  /** The access token that goes along. */
  token?: string;
  /** Send it with a value of the header `DPoP`. Called again if the server asks for another proof. */
  send(proof: string, url: string): Promise<R>;
  head(response: R): { status: number; headers: Pick<Headers, "get">; url?: string };
  /** Read the body, where an error may stand in it. */
  read?(response: R): Promise<string>;
  discard?(response: R): void;
  /** Asked before it is sent again. */
  mayRepeat?(response: R): boolean;
}

/** Signs the proofs of one session. */
export interface Prover {
  /** The RFC 7638 thumbprint of its key. */
  readonly thumbprint: string;
  /** Return a proof for one try of one request. */
  proof(method: string, url: string, token?: string): Promise<string>;
  send<R>(request: ProvenRequest<R>): Promise<R>;
}

/** Return what signs proofs with the key of a name, which cannot be exported. For `createSession({ dpop })`. */
export declare function openProver(name: string): Promise<Prover>;
