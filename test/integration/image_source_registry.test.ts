import { RegistryClient } from "../../src/registry/registry_client.ts";
import { imageSourceSuite } from "../contract/image_source_suite.ts";
import { startRegistryServer } from "../support/registry_server.ts";
import { streamOf } from "../support/streams.ts";

imageSourceSuite("RegistryClient with docker-registry", {
  notFound: "REGISTRY_NOT_FOUND",
  publish: async ({ tag, document, untagged, config, layer }) => {
    const server = await startRegistryServer();
    const client = new RegistryClient({ host: server.host, repository: "os/demo" });
    const close = async () => {
      await client.close();
      await server.stop();
    };
    try {
      for (const { descriptor, bytes } of [config, layer]) {
        await client.pushBlob(descriptor, () => streamOf(bytes));
      }
      await client.pushDocument(document, tag);
      await client.pushDocument(untagged, untagged.descriptor.digest);
      return { source: client, close };
    } catch (error) {
      await close();
      throw error;
    }
  },
});
