"""Examples of what waits, changes or prints. They run in a flow on virtual time, and share these programs and this outside world.

A table: `ns/name` → the example of a name whose definition carries none of its own.
"""

from __future__ import annotations

PROGRAMS = """\
(defforeign charge-card "Charges a card." [order])
(defflow nap "Sleeps for an hour." [] (sleep #dur "1h") :rested)
(defflow greet "Says hello." [who] (str "hello " who))
(defflow greet-later "Says what it is told to, to somebody." [who] (str (receive) " " who))
(defflow echo "Gives its next message back." [] (receive))
(defflow count-down "Begins anew until it comes to zero." [n] (if (pos? n) (continue-as (dec n)) :zero))
(defflow clerk "Answers one question." [] (reply (receive) {:total 42}))
"""
"""What examples may use besides the library."""
WORLD = """\
(with-foreign {charge-card (fn [order] {:id "ch_1"})
               sh          (fn [command] {:exit 0 :out "Thursday\\n" :err ""})
               sql/query   (fn [url query params] [{:sku "tea"}])}
  (with-http {"GET /price"       {:json {:price 42}}
              "POST /orders"     (fn [request] {:status 201 :json (:json request)})
              "PUT /orders/*"    {:status 204}
              "PATCH /orders/*"  {:json {:paid true}}
              "DELETE /orders/*" {:status 204}}
    %s))
"""
"""How the outside world answers them."""

EFFECT_EXAMPLES = {
    "core/compare-and-set!": "(let [a (atom 1)] [(compare-and-set! a 1 2) @a]) ;=> [true 2]",
    "core/flush": "(flush) ;=> nil",
    "core/newline": "(newline) ;=> nil",
    "core/pr": '(pr "a" :b) ;=> nil',
    "core/print": '(print "a" :b) ;=> nil',
    "core/printf": '(printf "%d of %d%n" 1 2) ;=> nil',
    "core/println": '(println "a" :b) ;=> nil',
    "core/prn": '(prn "a" :b) ;=> nil',
    "core/reset-vals!": "(reset-vals! (atom 1) 2) ;=> [1 2]",
    "core/swap!": "(swap! (atom 1) + 10) ;=> 11",
    "core/swap-vals!": "(swap-vals! (atom 1) inc) ;=> [1 2]",
    "core/throw": '(try (throw (ex-info "no" {})) (catch :default e (ex-message e))) ;=> "no"',
    "core/time": "(time (+ 1 2)) ;=> 3",
    "core/get-method": "(defmulti area :shape)\n(defmethod area :square [s] (* (:side s) (:side s)))\n((get-method area :square) {:side 3}) ;=> 9",
    "core/methods": "(defmulti area :shape)\n(defmethod area :square [s] (* (:side s) (:side s)))\n(keys (methods area)) ;=> (:square)",
    "core/prefers": "(defmulti area :shape) (prefer-method area :square :rectangle) (prefers area) ;=> {:square #{:rectangle}}",
    "flow/all": '(all [(start greet "Ada") (async (+ 1 2))]) ;=> ["hello Ada" 3]',
    "flow/all-settled": "(mapv keys (all-settled [(async 1) (async (/ 1 0))])) ;=> [(:value) (:error)]",
    "flow/any": "(any [(async (/ 1 0)) (async :second)]) ;=> :second",
    "flow/ask": '(ask (start clerk) {:order "A-17"}) ;=> {:total 42}',
    "flow/async": '(let [p (async (sleep #dur "1s") 42)] @p) ;=> 42',
    "flow/await": '(await (callback) {:timeout #dur "14d" :else :never}) ;=> :never',
    "flow/call": '(call \'charge-card ["A-17"]) ;=> {:id "ch_1"}',
    "flow/callback": "(let [c (callback)] (http/post (:url c) {:json {:paid true}}) @c) ;=> {:paid true}",
    "flow/cancel!": '(let [h (start nap)] (cancel! h "no longer needed") (settle!) (status h)) ;=> :cancelled',
    "flow/checkpoint": '(checkpoint "charged") ;=> nil',
    "flow/continue-as": "@(start count-down 3) ;=> :zero",
    "flow/flows": '(do (start-with {:id "n-1"} nap) (contains? (set (map :flow_id (flows))) "n-1")) ;=> true',
    "flow/fork": '(let [h (start greet-later "Ada")] (settle!) @(fork h {:at 1 :with "hello"})) ;=> "hello Ada"',
    "flow/history": '(let [h (start greet "Ada")] @h (mapv :kind (history h))) ;=> ["flow-started" "flow-completed"]',
    "flow/log": '(log {:step "charged"}) ;=> nil',
    "flow/next-event": '(let [sub (subscribe "orders")] (publish "orders" {:id "A-17"}) (next-event sub)) ;=> {:id "A-17"}',
    "flow/now": "(inst? (now)) ;=> true",
    "flow/parent": "(parent) ;=> nil",
    "flow/pause!": "(let [h (start nap)] (pause! h) (status h)) ;=> :paused",
    "flow/pmap": '(pmap (fn [who] (greet who)) ["Ada" "Alan"] {:max 8}) ;=> ["hello Ada" "hello Alan"]',
    "flow/promise-status": "(promise-status (callback)) ;=> :open",
    "flow/promise?": '(promise? (timer #dur "1s")) ;=> true',
    "flow/race": '(race (do (sleep #dur "1m") :slow) (do (sleep #dur "1s") :fast)) ;=> :fast',
    "flow/race-of": '(race-of (fn [] (sleep #dur "1m") :slow) (fn [] :fast)) ;=> :fast',
    "flow/retry!": "(let [h (start-with {:on-failure :pause} echo)] (try (retry! h) (catch :flow/conflict e :has-not-failed))) ;=> :has-not-failed",
    "flow/rand": "(< -1 (rand) 1) ;=> true",
    "flow/rand-int": "(contains? #{0 1 2} (rand-int 3)) ;=> true",
    "flow/random-uuid": "(uuid? (random-uuid)) ;=> true",
    "flow/receive": '(receive {:match {:kind "paid"} :timeout #dur "1h" :else :nothing}) ;=> :nothing',
    "flow/reply": '(ask (start clerk) {:order "A-17"} {:timeout #dur "1m"}) ;=> {:total 42}',
    "flow/resume!": "(let [h (start nap)] (pause! h) (resume! h) @h) ;=> :rested",
    "flow/select": '(select {:reply (callback) :late (timer #dur "10m")}) ;=> [:late nil]',
    "flow/select-from": '(select-from [(callback) (timer #dur "10m")]) ;=> [1 nil]',
    "flow/self": "(status (self)) ;=> :running",
    "flow/send": '(let [h (start echo)] (send h {:kind "paid"}) @h) ;=> {:kind "paid"}',
    "flow/set-info!": "(set-info! {:progress 0.5}) ;=> nil",
    "flow/sh": '(:out (sh ["date" "+%A"])) ;=> "Thursday\\n"',
    "flow/shuffle": "(sort (shuffle [3 1 2])) ;=> (1 2 3)",
    "flow/sleep": '(let [begun (now)] (sleep #dur "3h") (time/between begun (now))) ;=> #dur "3h"',
    "flow/sleep-until": '(let [t (time/plus (now) #dur "1h")] (sleep-until t) (= t (now))) ;=> true',
    "flow/start": '@(start greet "Ada") ;=> "hello Ada"',
    "flow/start-with": '(= (start-with {:id "A-17"} greet "Ada") (start-with {:id "A-17"} greet "Ada")) ;=> true',
    "flow/state-at": '(let [h (start nap)] (settle!) (:status (state-at h 1))) ;=> "waiting"',
    "flow/state-diff": '(let [h (start nap)] @h (:what (first (:fibers (state-diff h 1 nil))))) ;=> "ended"',
    "flow/step!": "(let [h (start echo)] (settle!) (pause! h) (send h 1) (step! h) @h) ;=> 1",
    "flow/status": "(let [h (start nap)] (settle!) (status h)) ;=> :waiting",
    "flow/subscribe": '(:topic (subscribe "orders" {:where {:kind "paid"}})) ;=> "orders"',
    "flow/terminate!": "(let [h (start nap)] (terminate! h) (status h)) ;=> :cancelled",
    "flow/timer": '@(timer #dur "10m") ;=> nil',
    "flow/topic": '(topic "orders" {:retain #dur "30d"}) ;=> nil',
    "flow/upgrade!": "(let [h (start nap)] (settle!) (:upgraded (upgrade! h))) ;=> false",
    "flow/with-timeout": '(try (with-timeout #dur "1m" (receive)) (catch :flow/timeout e :late)) ;=> :late',
    "flow/within": '(within #dur "1m" (fn [] (greet "Ada"))) ;=> "hello Ada"',
    "http/delete": '(:status (http/delete "https://shop.example/orders/1")) ;=> 204',
    "http/get": '(:json (http/get "https://shop.example/price" {:query {:sku 1} :timeout #dur "5s"})) ;=> {:price 42}',
    "http/patch": '(:json (http/patch "https://shop.example/orders/1" {:json {:paid true}})) ;=> {:paid true}',
    "http/post": '(:json (http/post "https://shop.example/orders" {:json {:id 1}})) ;=> {:id 1}',
    "http/put": '(:status (http/put "https://shop.example/orders/1" {:json {:id 1}})) ;=> 204',
    "http/request": '(:json (http/request {:method :get :url "https://shop.example/price"})) ;=> {:price 42}',
    "math/E": "(< 2.71 math/E 2.72) ;=> true",
    "math/PI": "(< 3.14 math/PI 3.15) ;=> true",
    "sql/query": '(sql/query "postgresql://db.example/shop" "SELECT sku FROM items WHERE n > $1" [0]) ;=> [{:sku "tea"}]',
    "test/advance!": '(let [h (start nap)] (advance! #dur "1h") (result h)) ;=> :rested',
    "test/calls": '(do (charge-card "A-17") (calls \'charge-card)) ;=> [["A-17"]]',
    "test/result": '(let [h (start greet "Ada")] (settle!) (result h)) ;=> "hello Ada"',
    "test/results": '(let [h (start nap)] (advance! #dur "1h") (results h \'sleep)) ;=> [{:value nil}]',
}
