import { createRequire } from 'node:module';
import { chromium, type Browser, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { machineV1, machineV2, mermaidOf } from '../../src/timeline/state-machine.ts';
import { ci } from '../../tools/vmm/binaries.ts';
import { findChromium } from '../support/chromium.ts';
import { because } from '../support/host.ts';
import { codeBlocks, documents } from './documents.ts';
import { patient } from '../support/patience.ts';

const require = createRequire(import.meta.url);
const mermaid = require.resolve('@mermaid-js/tiny');
const executablePath = findChromium();
const missing = executablePath === undefined ? 'no chromium-headless-shell or chromium in PATH' : undefined;
const PATIENCE = patient(120_000);

const pictures = documents.flatMap(({ path, text }) =>
  codeBlocks(text, 'mermaid').map((code, n) => ({ name: `${path}, picture ${n + 1}`, code })),
);

// GitHub draws them with Mermaid, which needs a browser to parse them
describe.skipIf(missing !== undefined && !ci)(`Mermaid${because(missing)}`, { timeout: PATIENCE }, () => {
  let browser: Browser | undefined;
  let page: Page;

  beforeAll(async () => {
    if (executablePath === undefined) throw new Error(`${missing}; set VFIO_SHIM_CHROMIUM to one`);
    browser = await chromium.launch({ executablePath, chromiumSandbox: false, timeout: PATIENCE });
    page = await browser.newPage();
    await page.addScriptTag({ path: mermaid });
    await page.evaluate('mermaid.initialize({ startOnLoad: false, suppressErrorRendering: true })');
  }, PATIENCE);
  afterAll(() => browser?.close(), PATIENCE);

  /** Draws a picture, and returns how many nodes and ways it has, and its texts. Throws what Mermaid says is wrong with it. */
  function draw(code: string): Promise<{ nodes: number; ways: number; texts: string }> {
    return page.evaluate(`
      mermaid.render('picture', ${JSON.stringify(code)}).then(({ svg }) => {
        document.body.innerHTML = svg;
        const count = (selector) => document.querySelectorAll(selector).length;
        return { nodes: count('.node'), ways: count('.edgePaths path'), texts: document.body.textContent };
      })
    `);
  }

  it('refuses what it does not know', async () => {
    await expect(draw('stateDiagram-v2\n  STOP --> --> RUNNING')).rejects.toThrow('Parse error on line 2');
    await expect(draw('flowchart LR\n  a --> b\n  c ->-> d')).rejects.toThrow('Parse error on line 3');
  });

  it.each(pictures)('draws $name', async ({ code }) => {
    expect((await draw(code)).texts.length).toBeGreaterThan(20);
  });

  it.each([machineV1(), machineV2(), machineV2(3)])('draws each state of a machine, and each arc', async (machine) => {
    const { nodes, ways, texts } = await draw(mermaidOf(machine));
    expect({ nodes, ways }).toEqual({ nodes: machine.states.length, ways: machine.arcs.length });
    for (const { label } of machine.arcs) expect(texts).toContain(label);
  });
});
