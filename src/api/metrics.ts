/** Upper bounds of a duration's buckets, seconds. */
const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600];

type Labels = Readonly<Record<string, string>>;
type Family = {
  readonly type: "counter" | "gauge";
  readonly help: string;
  readonly values: Map<string, number>;
};

/**
 * Numbers for Prometheus, in its text format: counters that grow, and gauges that are read when asked.
 *
 * Our own page: of a library we would use two of a dozen parts, and each would be imported at every start.
 *
 * @see https://prometheus.io/docs/instrumenting/exposition_formats/
 */
export class Metrics {
  readonly #families = new Map<string, Family>();
  readonly #gauges: (() => Promise<void> | void)[] = [];

  /** Adds to a counter; the name ends in `_total`, or is part of a histogram. */
  add(name: string, help: string, labels: Labels = {}, amount = 1): void {
    const { values } = this.#family(name, help, "counter");
    const key = labelText(labels);
    values.set(key, (values.get(key) ?? 0) + amount);
  }

  /** Counts a duration into its histogram. */
  observe(name: string, help: string, labels: Labels, seconds: number): void {
    for (const bound of BUCKETS) {
      this.add(`${name}_bucket`, help, { ...labels, le: String(bound) }, seconds <= bound ? 1 : 0);
    }
    this.add(`${name}_bucket`, help, { ...labels, le: "+Inf" });
    this.add(`${name}_sum`, help, labels, seconds);
    this.add(`${name}_count`, help, labels);
  }

  /** A counter that somebody else counts. */
  setTotal(name: string, help: string, value: number): void {
    this.#family(name, help, "counter").values.set("", value);
  }

  set(name: string, help: string, value: number, labels: Labels = {}): void {
    this.#family(name, help, "gauge").values.set(labelText(labels), value);
  }

  /** `read` is called before each look, and sets what it knows. */
  onLook(read: () => Promise<void> | void): void {
    this.#gauges.push(read);
  }

  async render(): Promise<string> {
    // A gauge that cannot be read is left as it was; the others are told.
    await Promise.allSettled(this.#gauges.map(async (read) => await read()));
    const lines: string[] = [];
    const described = new Set<string>();
    for (const [name, { type, help, values }] of this.#families) {
      const histogram = /^(.*)_(?:bucket|sum|count)$/.exec(name)?.[1];
      const base = histogram ?? name;
      if (!described.has(base)) {
        described.add(base);
        lines.push(`# HELP ${base} ${help}`, `# TYPE ${base} ${histogram ? "histogram" : type}`);
      }
      for (const [labels, value] of values) lines.push(`${name}${labels} ${value}`);
    }
    return lines.join("\n") + "\n";
  }

  #family(name: string, help: string, type: Family["type"]): Family {
    let family = this.#families.get(name);
    if (!family) this.#families.set(name, family = { type, help, values: new Map() });
    return family;
  }
}

function labelText(labels: Labels): string {
  const pairs = Object.entries(labels).map(([name, value]) =>
    `${name}="${value.replace(/[\\"\n]/g, (character) => character === "\n" ? "\\n" : `\\${character}`)}"`
  );
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}
