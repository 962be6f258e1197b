// Reads the whole simulated exchange with the official client, signed, and compares every answer
// with the interfaces that the client declares and with the other answers.
//
//   node check.mjs REST_URL KEY_ID PRIVATE_KEY_FILE
//
// Prints one JSON object: what was read, what was compared, and `problems`, empty when all agree.

import { createRequire } from "node:module";
import * as kalshi from "kalshi-typescript";
import { Declarations } from "./declared.mjs";

const [restUrl, keyId, keyFile] = process.argv.slice(2);
const PACKAGE = "kalshi-typescript";
const { version } = createRequire(import.meta.url)(`${PACKAGE}/package.json`);

const configuration = new kalshi.Configuration({
  apiKey: keyId,
  privateKeyPath: keyFile,
  basePath: restUrl,
});
const market = new kalshi.MarketApi(configuration);
const event = new kalshi.EventsApi(configuration);
const exchange = new kalshi.ExchangeApi(configuration);
const account = new kalshi.AccountApi(configuration);
const historical = new kalshi.HistoricalApi(configuration);

const declared = new Declarations(PACKAGE);
const { problems } = declared;
const calls = {};

// Compares a call's answer with the interface that the client says it returns.
async function ask(name, answer, call) {
  const { data } = await call.catch((error) => {
    throw new Error(`${name}: ${error.message} (${error.config?.url})`);
  });
  calls[name] = (calls[name] ?? 0) + 1;
  declared.compare(answer, data);
  return data;
}

function expect(holds, what) {
  if (!holds) problems.push(what);
}

// All items of a paged list, in pages small enough that there are several.
async function all(name, answer, list, page) {
  const items = [];
  const cursors = new Set();
  let cursor;
  do {
    const data = await ask(name, answer, page(cursor));
    items.push(...data[list]);
    cursor = data.cursor;
    expect(!cursors.has(cursor), `${name}: the cursor ${cursor} came twice`);
    if (cursors.has(cursor)) break;
    cursors.add(cursor);
  } while (cursor);
  return items;
}

function unique(name, keys) {
  expect(new Set(keys).size === keys.length, `${name}: something is listed twice`);
}

const isPrice = (text) => Number(text) >= 0 && Number(text) <= 1;

// Bids only, ascending, each level with a price inside (0, 1) and a size above 0.
function checkBook(ticker, book) {
  let levels = 0;
  for (const side of [book.yes_dollars, book.no_dollars]) {
    let last = 0;
    for (const level of side) {
      const [price, size] = level;
      expect(level.length === 2, `${ticker}: a level is a price and a size`);
      expect(/^\d\.\d{4,6}$/.test(price) && /^\d+\.\d\d$/.test(size), `${ticker}: level ${level}`);
      expect(Number(price) > last && Number(price) < 1, `${ticker}: ${price} follows ${last}`);
      expect(Number(size) > 0, `${ticker}: a level of ${size}`);
      last = Number(price);
      levels += 1;
    }
  }
  const best = (side) => Number(side.at(-1)?.[0] ?? 0);
  expect(best(book.yes_dollars) + best(book.no_dollars) < 1, `${ticker}: the book is crossed`);
  return levels;
}

async function checkExchange() {
  const status = await ask("status", "ExchangeStatus", exchange.getExchangeStatus());
  expect(status.exchange_active && status.trading_active, "the exchange is closed");
  const { schedule } =
    await ask("schedule", "GetExchangeScheduleResponse", exchange.getExchangeSchedule());
  expect(schedule.standard_hours.length > 0, "the schedule has no standard hours");
  const limits =
    await ask("limits", "GetAccountApiLimitsResponse", account.getAccountApiLimits());
  expect(limits.read.refill_rate > 0, "an account may not read");
  await ask("costs", "GetAccountEndpointCostsResponse", account.getAccountEndpointCosts());
  await ask("cutoff", "GetHistoricalCutoffResponse", historical.getHistoricalCutoff());
}

// What belongs to something else is read before it: markets are born and trade meanwhile.
async function checkCatalog(trades) {
  const markets = await all("markets", "GetMarketsResponse", "markets", (cursor) =>
    market.getMarkets(17, cursor));
  unique("markets", markets.map((one) => one.ticker));
  const events = await all("events", "GetEventsResponse", "events", (cursor) =>
    event.getEvents(2, cursor, true));
  unique("events", events.map((one) => one.event_ticker));
  const { series } = await ask("series", "GetSeriesListResponse", market.getSeriesList());
  unique("series", series.map((one) => one.ticker));

  const listed = new Set(markets.map((one) => one.ticker));
  for (const one of trades) expect(listed.has(one.ticker), `a trade of no market ${one.ticker}`);
  const eventOf = new Map(
    events.flatMap((one) => one.markets.map((inner) => [inner.ticker, one.event_ticker])));
  for (const one of markets) {
    expect(eventOf.get(one.ticker) === one.event_ticker, `${one.ticker} is of no event`);
    const prices = [
      one.yes_bid_dollars, one.yes_ask_dollars, one.no_bid_dollars, one.no_ask_dollars,
      one.last_price_dollars, one.previous_price_dollars, one.previous_yes_bid_dollars,
      one.previous_yes_ask_dollars,
    ];
    expect(prices.every(isPrice), `${one.ticker}: prices ${prices}`);
    expect(Number(one.yes_bid_dollars) < Number(one.yes_ask_dollars), `${one.ticker} is crossed`);
    expect(Date.parse(one.created_time) <= Date.now(), `${one.ticker} is created in the future`);
  }
  const known = new Set(series.map((one) => one.ticker));
  for (const one of events) {
    expect(known.has(one.series_ticker), `${one.event_ticker} is of no series`);
    expect(one.markets.length > 0, `${one.event_ticker} came without its markets`);
  }

  const found = await ask("market", "GetMarketResponse", market.getMarket(markets[0].ticker));
  expect(found.market.ticker === markets[0].ticker, "another market than asked for");
  const first = await ask("event", "GetEventResponse", event.getEvent(events[0].event_ticker));
  expect(first.event.event_ticker === events[0].event_ticker, "another event than asked for");
  expect(first.markets.length > 0, "an event came without its markets beside it");
  const one = await ask("one series", "GetSeriesResponse", market.getSeries(series[0].ticker));
  expect(one.series.ticker === series[0].ticker, "another series than asked for");
  const open = await ask("open markets", "GetMarketsResponse", market.getMarkets(
    1000, undefined, undefined, undefined, undefined, undefined, undefined, undefined, undefined,
    undefined, undefined, "open"));
  expect(open.markets.every((each) => each.status === "active"), "an open market is not active");
  return { series, events, markets, open: open.markets };
}

async function checkBooks(open) {
  const tickers = open.map((one) => one.ticker);
  let levels = 0;
  for (const ticker of tickers.slice(0, 10)) {
    const { orderbook_fp: book } = await ask(
      "book", "GetMarketOrderbookResponse", market.getMarketOrderbook(ticker));
    levels += checkBook(ticker, book);
  }
  const top = await ask(
    "top of a book", "GetMarketOrderbookResponse", market.getMarketOrderbook(tickers[0], 1));
  expect(top.orderbook_fp.yes_dollars.length <= 1, "a depth of 1 is one level");
  const batch = await ask("books", "GetMarketOrderbooksResponse",
    market.getMarketOrderbooks(tickers.slice(0, 100)));
  expect(batch.orderbooks.length === Math.min(tickers.length, 100), "a book is missing in the batch");
  for (const one of batch.orderbooks) levels += checkBook(one.ticker, one.orderbook_fp);
  expect(levels > 0, "no book has a level");
  return { books: batch.orderbooks.length, levels };
}

async function checkTrades() {
  const trades = await all("trades", "GetTradesResponse", "trades", (cursor) =>
    market.getTrades(50, cursor));
  unique("trades", trades.map((one) => one.trade_id));
  trades.forEach((one, at) => {
    const sum = Number(one.yes_price_dollars) + Number(one.no_price_dollars);
    expect(Math.abs(sum - 1) < 1e-9, `${one.trade_id}: both prices make ${sum}`);
    expect(Number(one.count_fp) > 0, `${one.trade_id}: ${one.count_fp} contracts`);
    const yes = one.taker_outcome_side === "yes";
    expect((one.taker_book_side === "bid") === yes, `${one.trade_id}: the taker's two sides differ`);
    // Newest first; the fraction's trailing zeros are cut, so that text does not compare.
    const newer = at > 0 ? trades[at - 1].created_time : one.created_time;
    expect(Date.parse(newer) >= Date.parse(one.created_time), `${one.trade_id} is out of order`);
  });
  expect(trades.length > 0, "nothing was traded");
  return trades;
}

// A call that must be signed is refused without a key, and with a wrong one.
async function checkRefusals() {
  const { default: axios } = await import("axios");
  const refused = async (parameters) => {
    const api = new kalshi.AccountApi(
      new kalshi.Configuration({ basePath: restUrl, ...parameters }), undefined, axios.create());
    return api.getAccountApiLimits().then(() => 200, (error) => error.response?.status);
  };
  expect((await refused({})) === 401, "an unsigned call for an account's limits is answered");
  const unknown = { apiKey: "00000000-0000-4000-8000-000000000000", privateKeyPath: keyFile };
  expect((await refused(unknown)) === 401, "a call under an unknown key is answered");
}

await checkExchange();
const trades = await checkTrades();
const { series, events, markets, open } = await checkCatalog(trades);
const { books, levels } = await checkBooks(open);
await checkRefusals();

const interfaces = {};
for (const name of ["Market", "EventData", "Series", "Trade", "OrderbookCountFp"]) {
  const compared = [...declared.compared].filter(([key]) => key.startsWith(`${name}.`));
  const values = compared.reduce((sum, [, count]) => sum + count, 0);
  interfaces[name] = { ...declared.counts(name), properties_seen: compared.length, values };
}
console.log(JSON.stringify({
  client: `${PACKAGE} ${version}`,
  markets: markets.length,
  open_markets: open.length,
  events: events.length,
  series: series.length,
  trades: trades.length,
  books,
  levels,
  calls,
  interfaces,
  undeclared: [...declared.undeclared].sort(),
  problems: problems.slice(0, 50),
}));
