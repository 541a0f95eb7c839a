import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { settingsForCallers } from "../../../src/api/caller_reference.ts";
import { loadSettings } from "../../../src/config/settings.ts";
import { useTemporaryDirectory } from "../../support/temporary_directory.ts";

const temporary = useTemporaryDirectory();

it("names for callers what the configuration names, as URLs spell it, and the token servers that it lists", async () => {
  const config = join(temporary(), "config.toml");
  await writeFile(
    config,
    `[registry]
insecure = ["Lab.example:80"]
[registry.host."a.example:443"]
token_servers = ["https://auth.other.example"]
[registry.host."10.0.0.1:5000"]
insecure = true
`,
  );
  const settings = await loadSettings({ config }, {
    isRoot: false,
    homeDirectory: temporary(),
    variables: {},
    workingDirectory: "/",
    processId: 1,
  });
  expect(settings.registries.network?.namedHosts).toBeUndefined();
  expect([...settingsForCallers(settings).registries.network?.namedHosts ?? []].sort()).toEqual([
    "10.0.0.1:5000",
    "a.example",
    "auth.other.example",
    "lab.example",
  ]);
});
