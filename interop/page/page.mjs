// Looks at the status page in a real Chromium, as the tests in interop/tests tell it to:
//
//   node page.mjs look URL TOKEN FOLDER   what the page shows while sessions come and go
//   node page.mjs paint URL TOKEN FOLDER  how soon it is painted
//
// `want X` on standard output asks the test to do X. Any failure ends it with the reason and exit code 1.

import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire("/opt/interop/page/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [mode, url, token, folder] = process.argv.slice(2);
const PATIENCE = 30_000;
const HOSTILE = "<img/src=x/onerror=alert(1)>";

const ensure = (is, what) => { if (!is) throw new Error(what); };
const want = (what) => console.log(`want ${what}`);
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });

// A page that records what it should not do. What the console says is expected while `page.quiet` is set.
const open = async (options = {}) => {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, bypassCSP: false, ...options });
  const page = await context.newPage();
  page.faults = [];
  page.on("pageerror", (error) => page.faults.push(`error: ${error.message}`));
  page.on("dialog", (dialog) => { page.faults.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("console", (line) => { if (!page.quiet) page.faults.push(`console: ${line.text()}`); });
  page.on("request", (request) => { if (new URL(request.url()).origin !== new URL(url).origin) page.faults.push(`request: ${request.url()}`); });
  page.setDefaultTimeout(PATIENCE);
  return page;
};

const enter = async (page, value) => {
  await page.locator("#token-value").fill(value);
  await page.locator("#token-value").press("Enter");
};

const show = async (page) => {
  page.quiet = true; // An answer without a token is an error to the browser.
  await page.goto(url);
  await page.locator("#token").waitFor();
  await enter(page, token);
  await page.locator("#status").waitFor();
  page.quiet = false;
};

const text = (page, selector, pattern) => page.locator(selector).filter({ hasText: pattern }).first().waitFor();

// axe-core finds nothing, and nothing is wider than the window. The policy of the page applies to what is
// typed into its console too; axe is injected past it.
const judge = async (page, what) => {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const found = violations.map((v) => `${v.id}: ${v.nodes.map((node) => node.target.join(" ")).join(", ")}`);
  ensure(found.length === 0, `${what}: axe-core finds ${found.join("; ")}`);
  const excess = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  ensure(excess <= 0, `${what}: ${excess} px too wide`);
};

const explains = async (page) => {
  await page.locator("#query").fill("203.0.113.9");
  await page.locator("#query").press("Enter");
  await text(page, "#answer-title", "203.0.113.0/24");
  await text(page, "#answer-title", "2 candidates, longest match of 203.0.113.9");
  await text(page, ".box.best", "tor-1");
  await text(page, ".step.decides", "wins: higher LOCAL_PREF, 200 against 100");
  await text(page, ".outcome .box", /Kernel.*installed/s);
  await text(page, ".outcome .box", "Advertised");
};

const look = async () => {
  const page = await open();
  page.quiet = true;
  await page.goto(url);
  await page.locator("#token").waitFor();
  await judge(page, "the token's form");
  const refused = page.waitForEvent("console");
  await enter(page, "not-the-token-at-all");
  await text(page, "#token-text", "That is not the token");
  await refused;
  await enter(page, token);
  await page.locator("#status").waitFor();
  page.quiet = false;

  // A name that is markup is text, also where it is a link and a title.
  await text(page, "#verdict-title", "1 session of 3 not established");
  await text(page, "#down-list button", HOSTILE);
  await page.locator("#down-list button").first().click();
  await text(page, "#answer-title", HOSTILE);
  await page.keyboard.press("Escape");
  ensure(await page.locator("img").count() === 0, "a name has become an element");
  ensure(!(await page.content()).includes(token), "the document holds the token");

  // It follows by itself, and so does what neighbours say.
  want("down");
  await text(page, "#verdict-title", "2 sessions of 3 not established");
  await text(page, "#down-list li", /tor-1/);
  await text(page, "#events li", "<b>maintenance</b>");
  await judge(page, "a session down");
  want("up");
  await text(page, "#verdict-title", "1 session of 3 not established");
  await text(page, ".chips li", /tor-1/);
  await text(page, "#plots .plot h3", "Route changes");
  // BIRD announces 3 s late to a neighbour whose OPEN says that it restarts.
  await text(page, "#figures > div", /Paths\s*2/);

  // Without a mouse.
  await page.mouse.click(2, 2);
  await page.keyboard.press("Tab");
  for (let n = 0; n < 3 && (await page.evaluate(() => document.activeElement.id)) !== "query"; n += 1) await page.keyboard.press("Tab");
  ensure(await page.evaluate(() => document.activeElement.id) === "query", "the search is not reached by Tab");
  await explains(page);
  ensure(await page.evaluate(() => document.activeElement.id) === "answer-title", "the answer has no focus");
  await page.keyboard.press("Escape");
  ensure(await page.locator("#answer").isHidden(), "Escape does not close the answer");
  ensure(await page.evaluate(() => document.activeElement.id) === "query", "focus is lost");
  await page.locator("#query").fill("nobody");
  page.quiet = true; // Nobody is found: 404, of which the browser tells when it likes.
  const told = page.waitForEvent("console");
  await page.keyboard.press("Enter");
  await text(page, "#answer", "There is no such peer");
  await told;
  page.quiet = false;
  await page.keyboard.press("Escape");

  for (const colorScheme of ["light", "dark"])
    for (const width of [1280, 400]) {
      const what = `${colorScheme}-${width}`;
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      await judge(page, what);
      await page.screenshot({ path: `${folder}/${what}.png`, fullPage: true });
      await explains(page);
      await judge(page, `${what}, explained`);
      await page.screenshot({ path: `${folder}/${what}-explained.png` });
      await page.keyboard.press("Escape");
    }
  await page.setViewportSize({ width: 1280, height: 900 });

  // 10,000 clients that say nothing, and another run of margay behind the same page.
  page.quiet = true;
  const asOf = await page.locator("#live").textContent();
  want("idle");
  await page.waitForFunction((before) => document.getElementById("live").textContent.startsWith("Live") &&
    document.getElementById("live").textContent !== before, asOf);
  want("stop");
  await text(page, "#live", "No answer");
  ensure(await page.locator("#status").isVisible(), "what was known is gone");
  want("start");
  await text(page, "#live", "Live");
  await text(page, "#verdict-title", "1 session of 3 not established");
  ensure(page.faults.length === 0, page.faults.join("\n"));
};

const paint = async () => {
  const times = [];
  const page = await open();
  await show(page);
  for (let n = 0; n < 3; n += 1) {
    await page.goto("about:blank");
    page.quiet = true;
    await page.goto(url);
    await page.locator("#token").waitFor({ state: "attached" });
    await page.waitForFunction(() => performance.getEntriesByName("margay-shown").length > 0);
    times.push(await page.evaluate(() => ({
      paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
      shown: performance.getEntriesByName("margay-shown")[0].startTime,
      cells: Math.max(...[...document.querySelectorAll("canvas")].map((canvas) => canvas.width * canvas.height)),
    })));
  }
  ensure(times.every((time) => time.cells > 100_000), `no picture of the sessions: ${JSON.stringify(times)}`);
  console.log(`times ${JSON.stringify(times)}`);
  if (folder) {
    await page.screenshot({ path: `${folder}/many-light-1280.png` });
    await page.emulateMedia({ colorScheme: "dark" });
    await page.setViewportSize({ width: 400, height: 900 });
    await page.screenshot({ path: `${folder}/many-dark-400.png` });
  }
  want("measure");
  await page.waitForTimeout(11_000);
  await text(page, "#live", "Live");
};

try {
  await (mode === "look" ? look() : paint());
  console.log("done");
} catch (error) {
  console.log(`failed: ${error.stack}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
