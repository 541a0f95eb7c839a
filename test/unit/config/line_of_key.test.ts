import { expect, it } from "vitest";
import { lineOfKey } from "../../../src/config/line_of_key.ts";

const TEXT = `root = "/x"
[a.b]
x = 1
[[list]]
x = 1
[[list]]
[list.sub]
x = 1
["a.b".'c"d']
x.y = 1
"\\u0065" = { z = 1 }
many = [
  1,
]
`;

it.each([
  [["root"], 1],
  [["a"], 2],
  [["a", "b", "x"], 3],
  [["list", 0, "x"], 5],
  [["list", 1], 6],
  [["list", 1, "sub", "x"], 8],
  [["a.b", 'c"d', "x", "y"], 10],
  [["a.b", 'c"d', "x", "z"], 9],
  [["a.b", 'c"d', "e", "z"], 11],
  [["a.b", 'c"d', "many", 0], 12],
  [["a", "c"], undefined],
  [["b"], undefined],
  [["x"], undefined],
])("finds %j on line %j", (path, line) => {
  expect(lineOfKey(TEXT, path)).toBe(line);
});
