// Run the class of docs/howto/reconnect.md on the npm package ws, and print what it reports.
//
//     node tests/clients/feed_client.mjs FILE URL
//
// A line on stdin is sent, "close" closes. Times of reconnecting are shortened to a hundredth.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import WebSocket from "ws";

globalThis.WebSocket = class extends WebSocket {
  constructor(...args) {
    super(...args);
    // A browser does not end its page because a connection fails; this package throws if there is no listener.
    this.on("error", () => {});
  }
};
const { setTimeout } = globalThis;
globalThis.setTimeout = (callback, delay, ...rest) => {
  if (new Error().stack.split("\n")[2].includes("feed.mjs")) {
    console.log(`wait ${Math.floor(delay)}`);
    delay /= 100;
  }
  return setTimeout(callback, delay, ...rest);
};

const [file, url] = process.argv.slice(2);
const { Feed } = await import(pathToFileURL(file));
const feed = new Feed(url, {
  message: ({ id, text }) => console.log(`message ${id} ${text}`),
  gap: () => console.log("gap"),
  end: (code, reason) => {
    console.log(`end ${code} ${reason}`);
    process.exit(0);
  },
});

createInterface({ input: process.stdin }).on("line", (line) => {
  if (line === "close") feed.close();
  else console.log(`sent ${feed.send(line)}`);
});
