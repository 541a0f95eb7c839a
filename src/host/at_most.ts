/**
 * Runs `body` for every item, at most `limit` at a time, in the items' order. The first failure stops the others and is
 * the one that is told; when this settles, nothing runs any more.
 *
 * @param body gets a signal that also fires when another one failed
 */
export async function runAtMost<T>(
  limit: number,
  items: Iterable<T>,
  { signal }: { readonly signal?: AbortSignal | undefined },
  body: (item: T, options: { readonly signal: AbortSignal }) => Promise<void>,
): Promise<void> {
  const stop = new AbortController();
  const both = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
  const failures: unknown[] = [];
  const queue = [...items].reverse();
  const work = async () => {
    for (let item = queue.pop(); item !== undefined && failures.length === 0; item = queue.pop()) {
      try {
        await body(item, { signal: both });
      } catch (error) {
        failures.push(error);
        stop.abort(error);
      }
    }
  };
  await Promise.all(Array.from({ length: limit }, work));
  if (failures.length > 0) throw failures[0];
}
