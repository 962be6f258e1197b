// Lists the trades of a range with the official client, the recent and the historical ones.
//
//   node trades.mjs FROM TO REST_URL KEY_ID PRIVATE_KEY_FILE
//
// FROM and TO are Unix seconds, both included. Prints one JSON object: the trades by list, each with
// its id and its time, and `problems`, empty when the lists have nothing in common.

import * as kalshi from "kalshi-typescript";

const [from, to, basePath, apiKey, privateKeyPath] = process.argv.slice(2);
const [minTs, maxTs] = [Number(from), Number(to)];
const configuration = new kalshi.Configuration({ apiKey, privateKeyPath, basePath });
const market = new kalshi.MarketApi(configuration);
const historical = new kalshi.HistoricalApi(configuration);

// All trades of a list, in pages small enough that there are several.
async function all(page) {
  const trades = [];
  let cursor;
  do {
    const { data } = await page(cursor);
    trades.push(...data.trades.map((one) => ({ id: one.trade_id, at: one.created_time })));
    cursor = data.cursor;
  } while (cursor);
  return trades;
}

const recent = await all((cursor) => market.getTrades(50, cursor, undefined, minTs, maxTs));
const old = await all((cursor) =>
  historical.getTradesHistorical(undefined, minTs, maxTs, 50, cursor));
const ids = [...recent, ...old].map((one) => one.id);
const problems = new Set(ids).size === ids.length ? [] : ["a trade is listed twice"];
console.log(JSON.stringify({ recent, historical: old, problems }));
