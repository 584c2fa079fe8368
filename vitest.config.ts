import { defineConfig } from 'vitest/config';

/** As of the tests' own waits: a machine that is emulated says that it takes so many times as long. */
const patience = Number(process.env['VFIO_SHIM_PATIENCE'] ?? 1);

const common = {
  pool: 'forks',
  setupFiles: 'test/support/to-be-bytes.ts',
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
          exclude: ['test/real/**'],
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        // Virtual machines want the processors for themselves: these come last. One often waits, so two files share a machine.
        test: {
          ...common,
          name: 'real',
          include: ['test/real/**/*.test.ts'],
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
    ],
    coverage: { provider: 'v8', include: ['src/**/*.ts'], exclude: ['src/**/index.ts'], reporter: ['text', 'html'] },
  },
});
