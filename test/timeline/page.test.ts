import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { chromium, type Browser, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { htmlOf } from '../../src/timeline/html.ts';
import { PHASES } from '../../src/timeline/phases.ts';
import { readTimeline, type Timeline } from '../../src/timeline/timeline.ts';
import { ci } from '../../tools/vmm/binaries.ts';
import { findChromium } from '../support/chromium.ts';
import { because } from '../support/host.ts';
import { destination, source, Tape } from './tape.ts';
import { patient } from '../support/patience.ts';

const executablePath = findChromium();
const missing = executablePath === undefined ? 'no chromium-headless-shell or chromium in PATH' : undefined;
const PATIENCE = patient(120_000);

describe.skipIf(missing !== undefined && !ci)(
  `the page, in a browser${because(missing)}`,
  { timeout: PATIENCE },
  () => {
    const directory = mkdtempSync(join(tmpdir(), 'vfio-shim-page-'));
    const timeline = readTimeline([
      source().add({ kind: 'takeover', time: source().at(2200), why: 'SIGKILL' }).entries,
      destination().entries,
    ]);
    let browser: Browser | undefined;
    let page: Page;
    /** What went wrong in the page, or was asked for by it. */
    const complaints: string[] = [];

    async function open(shown: Timeline): Promise<void> {
      const file = join(directory, 'page.html');
      writeFileSync(file, htmlOf(shown));
      complaints.length = 0;
      await page.goto(pathToFileURL(file).href);
    }

    beforeAll(async () => {
      if (executablePath === undefined) throw new Error(`${missing}; set VFIO_SHIM_CHROMIUM to one`);
      browser = await chromium.launch({ executablePath, chromiumSandbox: false, timeout: PATIENCE });
      page = await browser.newPage({ viewport: { width: 1224, height: 900 } });
      page.setDefaultTimeout(PATIENCE);
      page.on('pageerror', (error) => complaints.push(error.message));
      page.on('console', (message) => {
        if (message.type() === 'error') complaints.push(message.text());
      });
      page.on('request', (request) => {
        if (!request.url().startsWith('file:')) complaints.push(request.url());
      });
      page.on('dialog', (dialog) => {
        complaints.push(dialog.message());
        void dialog.dismiss();
      });
    }, PATIENCE);
    afterAll(async () => {
      await browser?.close();
      rmSync(directory, { recursive: true });
    }, PATIENCE);

    /** What the canvas shows: microseconds. */
    async function view(): Promise<{ begin: number; end: number }> {
      const { begin = '', end = '' } = await page.$eval('canvas', ({ dataset }) => ({ ...dataset }));
      return { begin: Number(begin), end: Number(end) };
    }

    /** The colour at a place of the canvas, as `#rrggbb`. */
    async function colourAt(x: number, y: number): Promise<string> {
      const bytes = await page.$eval(
        'canvas',
        (canvas, [px, py]) =>
          Array.from((canvas as unknown as Canvas).getContext('2d').getImageData(px, py, 1, 1).data),
        [x, y] as const,
      );
      return `#${Buffer.from(bytes.slice(0, 3)).toString('hex')}`;
    }

    /** Where a time is on the canvas that shows the migration. */
    const xOf = (time: number): number => {
      const { begin, end } = timeline.migration;
      return Math.round(190 + ((time - begin) / (end - begin)) * (1200 - 190 - 16));
    };
    /** The first row of the first device: below the axis and two headings. */
    const ROW = 34 + 18 + 18 + 16;

    async function pointAt(x: number, y: number): Promise<string> {
      const box = await page.locator('canvas').boundingBox();
      await page.mouse.move((box?.x ?? 0) + x, (box?.y ?? 0) + y);
      return (await page.locator('#hint').isVisible()) ? page.locator('#hint').innerText() : '';
    }

    it('shows the migration, with each state in its colour, and complains of nothing', async () => {
      await open(timeline);
      expect(await view()).toEqual(timeline.migration);
      expect(await colourAt(xOf(1500), ROW)).toBe(PHASES['pre-copy'].colour);
      expect(await colourAt(xOf(950), ROW)).toBe(PHASES.running.colour);
      expect(complaints).toEqual([]);
    });

    it('says what the pointer is on: a state, a call, bytes, a takeover', async () => {
      await open(timeline);
      expect(await pointAt(xOf(1700), ROW)).toBe('PRE_COPY: the device runs, and saves, for 1 ms');
      expect(await pointAt(xOf(1510), 34 + 18 + 18 + 22 + 5)).toMatch(/^data_size -> 100 B <20 us>, 100 B at /);
      expect(await pointAt(xOf(2700), 34 + 18 + 18 + 22 + 14 + 20)).toBe('1.1 KiB of 1.1 KiB out');
      expect(await pointAt(xOf(2200), 34 + 18 + 18 + 22 + 14 + 20)).toBe('the supervisor died (SIGKILL)');
      expect(await pointAt(5, 2)).toBe('');
    });

    it('zooms to where the pointer is, moves, and shows the migration again', async () => {
      await open(timeline);
      const all = await view();
      await pointAt(xOf(2000), ROW);
      await page.mouse.wheel(0, -100);
      await expect
        .poll(async () => (await view()).end - (await view()).begin)
        .toBeCloseTo((all.end - all.begin) * 0.8, 3);
      const near = await view();
      // what was below the pointer still is
      expect((2000 - near.begin) / (near.end - near.begin)).toBeCloseTo((2000 - all.begin) / (all.end - all.begin), 2);
      await page.locator('canvas').press('ArrowRight');
      expect((await view()).begin).toBeGreaterThan(near.begin);
      await page.locator('canvas').press('-');
      expect((await view()).end - (await view()).begin).toBeCloseTo(all.end - all.begin, 3);
      await page.locator('canvas').dblclick();
      expect(await view()).toEqual(all);
    });

    it('has buttons for the downtime and for everything', async () => {
      await open(timeline);
      await page.getByRole('button', { name: 'Downtime' }).click();
      expect(await view()).toEqual({ begin: 2000, end: 3000 });
      await page.getByRole('button', { name: 'Everything' }).click();
      expect(await view()).toEqual(timeline.whole);
      await open(readTimeline([source().entries]));
      expect(await page.getByRole('button', { name: 'Downtime' }).isDisabled()).toBe(true);
    });

    it('runs nothing that a recording brings, and shows it as text', async () => {
      const evil = '</script><script>alert(1)</script><img src=http://localhost/x onerror=alert(2)>';
      const devices = [{ name: evil, device: evil, protocol: 'v2' }] as const;
      await open(
        readTimeline([
          new Tape({ host: evil, devices }).opened(0, evil).state(5, 'STOP_COPY', evil).bytes(9, 'out', 1, evil)
            .entries,
        ]),
      );
      expect(complaints).toEqual([]);
      expect(await page.locator('img').count()).toBe(0);
      expect(await page.locator('script').count()).toBe(2);
    });

    it('draws what is close together, and long recordings', async () => {
      const tape = source();
      for (let n = 0; n < 20_000; n += 1) tape.bytes(3000 + n, 'out', 1);
      await open(readTimeline([tape.entries]));
      expect(complaints).toEqual([]);
      await page.getByRole('button', { name: 'Everything' }).click();
      expect((await view()).end).toBeGreaterThan(20_000);
    });
  },
);

/** As much of a canvas as is looked at. */
interface Canvas {
  getContext(kind: '2d'): {
    getImageData(x: number, y: number, width: number, height: number): { data: Uint8ClampedArray };
  };
}
