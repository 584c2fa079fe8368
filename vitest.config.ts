import { availableParallelism, loadavg } from 'node:os';
import { defineConfig } from 'vitest/config';

/**
 * How many times as long as on an idle machine anything is waited for: as many as others want its processors, and twice at least. A machine
 * that is emulated says how many.
 */
const [others = 0] = loadavg();
const patience = Number(process.env['VFIO_SHIM_PATIENCE'] ?? Math.max(2, Math.ceil(others / availableParallelism())));

/** `npm test` says so. */
const isShort = process.env['VFIO_SHIM_SHORT'] === '1';

/**
 * What `npm test` leaves to `npm run check`, which CI runs: each takes a good part of a minute, and of what it is about a shorter test is
 * left. Of virtual machines, one migration of each protocol.
 */
const longer = isShort
  ? [
      'test/cli/save-under-run.test.ts',
      'test/interpose/emulated/dma-run.test.ts',
      'test/interpose/process/words.test.ts',
      'test/interpose/serve/draft-client.test.ts',
      'test/interpose/trap/deputy.test.ts',
      'test/interpose/trap/mapping.test.ts',
      'test/vfio-user/proxy.test.ts',
      'test/vfio/client/logged-pages.test.ts',
    ]
  : [];
const virtualMachines = isShort ? ['test/real/qemu-*.test.ts'] : ['test/real/**/*.test.ts'];

const common = {
  pool: 'forks',
  setupFiles: 'test/support/to-be-bytes.ts',
  env: { VFIO_SHIM_PATIENCE: String(patience) },
  testTimeout: 30_000 * patience,
  hookTimeout: 30_000 * patience,
} as const;

export default defineConfig({
  test: {
    maxWorkers: 2,
    projects: [
      {
        test: {
          ...common,
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/real/**', ...longer],
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        // Virtual machines want the processors for themselves: these come last. One often waits, so two files share a machine.
        test: {
          ...common,
          name: 'real',
          include: virtualMachines,
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
    ],
    coverage: { provider: 'v8', include: ['src/**/*.ts'], exclude: ['src/**/index.ts'], reporter: ['text', 'html'] },
  },
});
