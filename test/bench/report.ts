export type Measure = {
  readonly name: string;
  readonly unit: "s" | "ms" | "MiB";
  /** One of each round. */
  readonly values: readonly number[];
};

export type Ratio = {
  readonly name: string;
  /** Of each round its own: what disturbs the machine disturbs both sides of one. */
  readonly values: readonly number[];
  readonly atMost?: number;
  readonly atLeast?: number;
  /** Of a figure that is no ratio. */
  readonly unit?: "ms" | "MiB";
};

export type PartReport = {
  readonly name: string;
  readonly measures: readonly Measure[];
  readonly ratios: readonly Ratio[];
  /** Why the part, or a piece of it, was left out. */
  readonly notes: readonly string[];
};

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [low = NaN, high = NaN] = [sorted[sorted.length % 2 === 0 ? middle - 1 : middle], sorted[middle]];
  return (low + high) / 2;
}

export function ratios(values: readonly number[], basis: readonly number[]): number[] {
  return values.map((value, round) => value / (basis[round] ?? NaN));
}

export function holds({ values, atMost = Infinity, atLeast = -Infinity }: Ratio): boolean {
  const middle = median(values);
  return middle <= atMost && middle >= atLeast;
}

const BAR_WIDTH = 30;

/** For people: medians with their spread, a bar for each, and what was promised. */
export function formatPart({ name, measures, ratios, notes }: PartReport): string {
  const lines = [`\n## ${name}`];
  for (const { name, unit, values } of measures) {
    const longest = Math.max(
      ...measures.filter((each) => each.unit === unit).map((each) => median(each.values)),
    );
    const bar = "#".repeat(Math.max(1, Math.round(BAR_WIDTH * median(values) / longest)));
    lines.push(`  ${name.padEnd(44)} ${spread(values, unit).padStart(30)}  ${bar}`);
  }
  for (const ratio of ratios) {
    const { atMost, atLeast, unit = "x", values } = ratio;
    const target = atMost === undefined
      ? atLeast === undefined ? "" : `at least ${atLeast}`
      : `at most ${atMost}`;
    const verdict = target === "" ? "    " : holds(ratio) ? "ok  " : "MISS";
    lines.push(`  ${verdict} ${ratio.name.padEnd(59)} ${spread(values, unit)}  ${target}`.trimEnd());
  }
  return [...lines, ...notes.map((note) => `  (${note})`), ""].join("\n");
}

function spread(values: readonly number[], unit: string): string {
  const [low, middle, high] = [Math.min(...values), median(values), Math.max(...values)].map(digits);
  return values.length === 1 ? `${middle} ${unit}` : `${middle} ${unit} (${low} to ${high})`;
}

function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

/** For machines. */
export function toJson(parts: readonly PartReport[], facts: Readonly<Record<string, unknown>>): string {
  const summed = ({ values, ...rest }: Measure | Ratio) => ({
    ...rest,
    median: median(values),
    min: Math.min(...values),
    max: Math.max(...values),
    values,
  });
  return JSON.stringify(
    {
      ...facts,
      parts: parts.map(({ measures, ratios, ...rest }) => ({
        ...rest,
        measures: measures.map(summed),
        ratios: ratios.map((ratio) => ({ ...summed(ratio), holds: holds(ratio) })),
      })),
    },
    null,
    2,
  ) + "\n";
}
