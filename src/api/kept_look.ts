/**
 * Makes a look that is dear one that is made once at a time: whoever comes meanwhile, and for a while afterwards, is given
 * the same. One that failed is not kept.
 */
export function keptLook<T>(look: () => Promise<T>, keepMs: number): () => Promise<T> {
  let current: { readonly found: Promise<T>; endMs: number } | undefined;
  return () => {
    if (current && performance.now() < current.endMs) return current.found;
    const found = look();
    const kept = { found, endMs: Infinity };
    current = kept;
    found.then(() => kept.endMs = performance.now() + keepMs, () => kept.endMs = 0);
    return found;
  };
}
