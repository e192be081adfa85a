/**
 * The operator's masks in JavaScript, for rng "philox": a reading of docs/operator.md without any library.
 *
 * Runs in browsers and in Node.js. Seeds and steps are BigInt, since they have 64 bits.
 */

const LOW = 0xffffffffn;

/** The word of an entry of a row: word `entry % 4` of the Philox4x32-10 block with this key and counter. */
export function word(seed, step, entry) {
  const [key, count] = [BigInt.asUintN(64, seed), BigInt.asUintN(64, step)];
  const block = BigInt(Math.floor(entry / 4));
  let [k0, k1] = [key & LOW, key >> 32n];
  let c = [block & LOW, block >> 32n, count & LOW, count >> 32n];
  for (let round = 0; round < 10; ++round) {
    const [p0, p1] = [0xd2511f53n * c[0], 0xcd9e8d57n * c[2]];
    c = [(p1 >> 32n) ^ c[1] ^ k0, p1 & LOW, (p0 >> 32n) ^ c[3] ^ k1, p0 & LOW];
    [k0, k1] = [(k0 + 0x9e3779b9n) & LOW, (k1 + 0xbb67ae85n) & LOW];
  }
  return Number(c[entry % 4]);
}

/** Whether an entry of a row is kept. `strata` is 1 or a prime number from 3 to 127; `step` is 0n or more. */
export function isKept(seed, step, entry, ratio, strata = 1) {
  const threshold = Math.ceil(Math.fround(ratio) * strata * 2 ** 24);
  const [whole, part] = [Math.floor(threshold / 2 ** 24), threshold % 2 ** 24];
  let rank = 0;
  if (strata > 1) {
    const [cycle, place] = [step / BigInt(strata), Number(step % BigInt(strata))];
    const drawn = word(seed, cycle + (1n << 63n), entry) % (strata * (strata - 1));
    rank = ((1 + Math.floor(drawn / strata)) * place + (drawn % strata)) % strata;
  }
  return rank === whole ? word(seed, step, entry) >>> 8 >= part : rank > whole;
}

/** One row of a mask, true: kept. */
export function maskRow(seed, step, entries, ratio, strata = 1) {
  return Array.from({ length: entries }, (_, entry) => isKept(seed, step, entry, ratio, strata));
}
