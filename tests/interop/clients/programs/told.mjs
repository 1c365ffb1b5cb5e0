// What all these programs share: what they are told comes as JSON by standard input, what they found goes out so.

import { readFileSync } from 'node:fs';

export async function told(work) {
  const found = JSON.stringify(await work(JSON.parse(readFileSync(0, 'utf8'))));
  process.stdout.write(found, () => process.exit(0)); // timers of the library shall not keep the program
}
